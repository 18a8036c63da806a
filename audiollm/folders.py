"""Folders of models: found, checked, and replaced whole.

An Audio-LLM's folder is that of its causal LM and its text tokenizer, with ``processor_config.json`` and the folder
``audio_tokenizer/`` beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_utils import PreTrainedAudioTokenizerBase

from audiollm.data.files.atomic import atomic_folder
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.folders import HUB_OPTIONS, find_folder
from audiollm.tokenizer.decoder.checkpoints.files import copy_decoder_beside

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


@dataclass(frozen=True)
class Origin:
    """Where a processor was loaded from: a folder, or a Hub id with the arguments that reached it."""

    name: str
    hub: dict[str, Any]

    @classmethod
    def from_arguments(cls, path_or_hub_id: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Origin:
        """Keeps what transformers' ``from_pretrained`` was called with, as far as it concerns the Hub."""
        hub = {key: arguments[key] for key in HUB_OPTIONS if arguments.get(key) is not None}
        return cls(os.fspath(path_or_hub_id), hub)

    def subfolder(self, name: str) -> Path | None:
        """The folder inside it, downloaded if need be; None if there is none.

        Raises:
            ValueError: if it is neither here nor on the Hub.
        """
        folder = find_folder(self.name, needed=[f"{name}/*"], **self.hub) / name
        return folder if folder.is_dir() else None


def copy_audio_tokenizer(source: Path, target: Path) -> None:
    """Copies the files: the object in memory may have been loaded without the layers that ids do not need.

    The waveform decoder comes along, also from beside a release's ``tokenizer/``.
    """
    if target.exists() and source.resolve() == target.resolve():
        return
    with atomic_folder(target) as new:
        shutil.copytree(source, new, dirs_exist_ok=True)
        copy_decoder_beside(source, new)


def save_audio_tokenizer(audio_tokenizer: AudioTokenizer, target: Path) -> None:
    """Writes an audio tokenizer that is in memory.

    Raises:
        ValueError: if it is of a kind that cannot be saved.
    """
    if not isinstance(audio_tokenizer, PreTrainedAudioTokenizerBase):
        raise ValueError(
            f"{type(audio_tokenizer).__name__} cannot be saved (it is no PreTrainedAudioTokenizerBase): "
            "give the processor codec_path= instead"
        )
    with atomic_folder(target) as new:
        audio_tokenizer.save_pretrained(new)
