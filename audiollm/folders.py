"""Folders that models are loaded from: an Audio-LLM's must be complete, a text LLM's must hold a causal LM."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def check_folder(path_or_hub_id: str | os.PathLike[str]) -> None:
    """Refuses a local folder that is no Audio-LLM, naming everything that is missing; Hub ids are left to the Hub."""
    folder = Path(path_or_hub_id)
    if not folder.is_dir():
        looks_like_path = folder.is_absolute() or os.fspath(path_or_hub_id).startswith((".", "~")) or folder.exists()
        if looks_like_path or len(folder.parts) > 2:
            raise ValueError(f"{folder} is no folder: give an Audio-LLM folder or a Hub id such as owner/name")
        return
    missing = [
        name for name in ("config.json", "tokenizer.json", "processor_config.json") if not (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        missing.append(WEIGHT_FILES[0])
    codec_path = None
    if (folder / "processor_config.json").is_file():
        codec_path = json.loads((folder / "processor_config.json").read_text(encoding="utf-8")).get("codec_path")
    if codec_path is not None and not (folder / codec_path).is_dir() and not Path(codec_path).is_absolute():
        missing.append(f"{codec_path}/")
    if not missing:
        return
    hint = "make an Audio-LLM of a text LLM with AudioLLM.create() or `audiollm extend`"
    if (folder / "adapter_config.json").is_file():
        hint = "it holds a LoRA adapter: load the model that the adapter was merged into"
    elif {"processor_config.json", "tokenizer.json"} <= set(missing) and "config.json" not in missing:
        hint = "is it an audio tokenizer or a bare model? " + hint
    raise ValueError(f"{folder} is no Audio-LLM folder, it has no {', '.join(missing)}: {hint}")


def load_text_llm(path_or_hub_id: str | os.PathLike[str], dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    """Loads a causal LM, all of it: transformers would draw missing weights at random and only warn.

    Raises:
        ValueError: if the checkpoint lacks weights that a causal LM of its type has.
    """
    model, report = AutoModelForCausalLM.from_pretrained(path_or_hub_id, dtype=dtype, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{path_or_hub_id} is no causal LM: it lacks {len(missing)} weights of a {type(model).__name__}, such as "
            f"{missing[0]}; name a text LLM such as Qwen/Qwen2.5-0.5B"
        )
    return model
