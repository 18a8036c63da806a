"""Low-rank adapters: put on a model, and merged into it; what is not whole or is another model's is refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from audiollm.loading import refused_by_transformers, without_memory
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_finite, check_shapes, read_safetensors, stored_shapes

from .config import LoRASettings

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # their names in PEFT


def add_adapters(audio_llm: AudioLLM, settings: LoRASettings) -> Any:
    """Puts low-rank adapters on the linear layers and makes the audio rows trainable.

    Args:
        audio_llm: the Audio-LLM; its model is changed in place.
        settings: rank, scale, layers.

    Returns:
        The PEFT model. Only adapters and audio rows have gradients. With tied weights the output rows follow the
        embedding's; without, both have rows of their own.
    """
    from peft import LoraConfig, get_peft_model  # takes seconds, and only LoRA needs it

    rows: dict[str, list[int]] | None = None
    if settings.train_audio_rows:
        token_ids = audio_llm.vocabulary.token_ids
        rows = {"embed_tokens": token_ids}
        if not audio_llm.model.config.tie_word_embeddings:
            rows["lm_head"] = token_ids
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
        trainable_token_indices=rows,
    )
    return get_peft_model(audio_llm.model, lora)


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
    from peft import PeftModel  # takes seconds, and only LoRA needs it

    audio_llm = AudioLLM.from_pretrained(source, dtype=getattr(torch, dtype))
    _check_adapter(audio_llm.model.config, source, adapter)
    audio_llm.model = PeftModel.from_pretrained(audio_llm.model, adapter).merge_and_unload()
    return audio_llm


def _check_adapter(model_config: Any, source: str, adapter: Path) -> None:
    """Compares an adapter with what its settings put on the model, before PEFT gives it memory or makes up the rest."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    if not (adapter / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{adapter} holds no adapter: expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}")
    settings = read_json_object(adapter / ADAPTER_CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{adapter / ADAPTER_CONFIG}: peft_type={settings.get('peft_type')!r}; only LORA is merged")
    base = settings.get("base_model_name_or_path")
    if isinstance(base, str) and os.path.realpath(base) != os.path.realpath(source):
        raise ValueError(
            f"{adapter} was trained on {base}, not on {source}: merge it into that one; if the folder was only moved, "
            f"say so in {ADAPTER_CONFIG} (base_model_name_or_path)"
        )
    stored = stored_shapes(adapter / ADAPTER_WEIGHTS)
    with refused_by_transformers(str(adapter)), torch.device("meta"):
        adapted = get_peft_model(without_memory(model_config), LoraConfig.from_pretrained(adapter))
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    check_shapes(expected, stored, adapter)
    check_finite(read_safetensors(adapter / ADAPTER_WEIGHTS), adapter)
