"""Low-rank adapters: put on a model to be trained, and merged into it afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import nn
from transformers.pytorch_utils import Conv1D

from audiollm.modeling import AudioLLM
from audiollm.sources.adapters import with_adapter, without_warnings_of_peft

from .config import LoRASettings

logger = get_logger(__name__)

_NO_LAYERS = "dummy-target-modules"  # PEFT's name for "none", which it otherwise takes for a mistake


def add_adapters(audio_llm: AudioLLM, settings: LoRASettings) -> Any:
    """Puts low-rank adapters on the linear layers and makes the audio rows trainable.

    Args:
        audio_llm: the Audio-LLM; its model is changed in place.
        settings: rank, scale, layers.

    Returns:
        The PEFT model. Only adapters and audio rows have gradients. With tied weights the output rows follow the
        embedding's; without, both have rows of their own.

    Raises:
        ValueError: if a layer that is named does not exist, or none is linear.
    """
    from peft import get_peft_model  # takes seconds, and only LoRA needs it

    with without_warnings_of_peft():
        return get_peft_model(audio_llm.model, adapter_config(audio_llm, settings))


def adapter_config(audio_llm: AudioLLM, settings: LoRASettings) -> Any:
    """What PEFT is told of the adapters; arguments and errors as for `add_adapters`."""
    from peft import LoraConfig

    rows: dict[str, list[int]] | None = None
    if settings.train_audio_rows:
        token_ids = audio_llm.vocabulary.token_ids
        rows = {"embed_tokens": token_ids}
        if not audio_llm.model.config.tie_word_embeddings:
            rows["lm_head"] = token_ids
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_NO_LAYERS if settings.rows_only else adapted_layers(audio_llm.model, settings.target_modules),
        trainable_token_indices=rows,
    )


def adapted_layers(model: Any, named: Iterable[str] | None) -> list[str]:
    """Names of the layers that get an adapter, each of which exists: PEFT would leave out the others in silence."""
    output = model.get_output_embeddings()
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not output
    ]
    names = sorted({name.rpartition(".")[2] for name in layers})
    stacked = sorted({name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.dim() == 3})
    kind = type(model).__name__
    if not names:
        raise ValueError(f"lora: {kind} has no linear layers that could get an adapter; train all weights instead")
    missing = [one for one in named or () if not any(f".{name}".endswith(f".{one}") for name in layers)]
    if missing:
        raise ValueError(
            f"lora.target_modules: {kind} has no linear layers {', '.join(missing)}; choose among "
            f"{', '.join(names)}, or leave target_modules out for all of them"
        )
    if stacked:
        logger.warning("lora: the experts of %s (%s) get no adapters and keep their weights", kind, ", ".join(stacked))
    return names if named is None else list(named)


def merge_adapter(source: str, adapter: Path, dtype: str) -> AudioLLM:
    """Loads an Audio-LLM and merges a saved adapter into its weights.

    Args:
        source: folder or Hub id of the Audio-LLM that the adapter was trained on.
        adapter: its folder, as PEFT writes it.
        dtype: of the weights.

    Raises:
        ValueError: if the adapter is damaged, was trained on another model, or its weights are missing, unknown,
            misshapen or no numbers; the message names them.
    """
    audio_llm = AudioLLM.from_pretrained(source, dtype=getattr(torch, dtype))
    audio_llm.model = with_adapter(audio_llm.model, source, adapter)
    return audio_llm
