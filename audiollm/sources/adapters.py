"""Low-rank adapters, merged into the LLM they were trained on; what is damaged or another model's is refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from audiollm.loading import refuse_quantized, refused_by_transformers, without_memory
from audiollm.mini import model_or_mini
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_finite, check_shapes, read_safetensors, stored_shapes

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # their names in PEFT


@contextmanager
def without_warnings_of_peft() -> Iterator[None]:
    """Leaves out what PEFT's own use of a name that transformers renamed would tell users, who cannot mend it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def with_adapter(model: PreTrainedModel, source: str, adapter: Path) -> PreTrainedModel:
    """Merges a saved adapter into the weights of a model.

    Args:
        model: the LLM of the Audio-LLM that the adapter was trained on; changed in place.
        source: folder or Hub id that it was loaded from.
        adapter: the adapter's folder, as PEFT writes it.

    Raises:
        ValueError: if the adapter is damaged, was trained on another model, or its weights are missing, unknown,
            misshapen or no numbers; the message names them.
    """
    from peft import PeftModel  # takes seconds, and only LoRA needs it

    refuse_quantized(model, source, f"merged with the adapter {adapter}")
    _check_adapter(model.config, source, adapter)
    with without_warnings_of_peft():
        merged: PreTrainedModel = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return merged


def _check_adapter(model_config: Any, source: str, adapter: Path) -> None:
    """Compares an adapter with what its settings put on the model, before PEFT gives it memory or makes up the rest."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    if not (adapter / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{adapter} holds no adapter: expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}")
    settings = read_json_object(adapter / ADAPTER_CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{adapter / ADAPTER_CONFIG}: peft_type={settings.get('peft_type')!r}; only LORA is merged")
    base = settings.get("base_model_name_or_path")
    if isinstance(base, str) and os.path.realpath(model_or_mini(base)) != os.path.realpath(model_or_mini(source)):
        raise ValueError(
            f"{adapter} was trained on {base}, not on {source}: merge it into that one; if the folder was only moved, "
            f"say so in {ADAPTER_CONFIG} (base_model_name_or_path)"
        )
    stored = stored_shapes(adapter / ADAPTER_WEIGHTS)
    with refused_by_transformers(str(adapter)), torch.device("meta"), without_warnings_of_peft():
        config = LoraConfig.from_pretrained(adapter)
        config.base_model_name_or_path = None  # it has been compared; PEFT would warn that this one has no name
        adapted = get_peft_model(without_memory(model_config), config)
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    check_shapes(expected, stored, adapter)
    check_finite(read_safetensors(adapter / ADAPTER_WEIGHTS), adapter)
