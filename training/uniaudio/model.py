"""Where a stage starts, and the model that it leaves for the next one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from audiollm.data.files.atomic import atomic_folder
from audiollm.loading import refuse_quantized
from audiollm.mini import audio_tokenizer_or_mini
from audiollm.sources.adapters import without_warnings_of_peft
from audiollm.sources.places import EXTENDED_FOLDER, find_source
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.audio_llm.adapters import adapted_layers
from audiollm.training.audio_llm.model import recompute_activations
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.uniaudio import UniAudio, UniAudioLMConfig, is_uniaudio
from audiollm.uniaudio.processor import check_codebooks, code_layout

from .config import TextLoRASettings, UniAudioTrainingConfig
from .stages import check_order, train_only, with_stage

_ADAPTER = "default"


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        uniaudio: the LM, its trainable parts marked, and its processor.
        source: folder that it was loaded from.
        adapters: PEFT's, on the layers of the text LLM; None: there are none.
    """

    uniaudio: UniAudio
    source: str
    adapters: Any = None


def load_starting_point(accelerator: Accelerator, config: UniAudioTrainingConfig) -> StartingPoint:
    """Loads the LM on every process, after building it around a text LLM in the first stage.

    It is built by one process and saved, so that a resumed run starts from the same weights.

    Raises:
        ValueError: if it is not this stage's turn, the text LLM is of another family, or the audio tokenizer has other
            codes than the model.
    """
    source = config.model
    if is_uniaudio(config.model):
        if config.audio_tokenizer is not None:
            _refuse_another_tokenizer(config)
    else:
        source = _built(accelerator, config)
    uniaudio = UniAudio.from_pretrained(
        source, dtype=getattr(torch, config.dtype), attn_implementation=config.attn_implementation
    )
    model = uniaudio.model
    check_order(config.stage, model.config.trained_stages, config.model)
    refuse_quantized(model, source, "trained")
    uniaudio.processor.audio_device = accelerator.device
    uniaudio.processor.accepted_codes = frozenset(config.accept_codes_of)
    _weigh(uniaudio, config)
    train_only(model, config.parts)
    if config.gradient_checkpointing:
        recompute_activations(model)
    adapters = None if config.lora is None else _add_adapters(model.text_llm, config.lora)
    return StartingPoint(uniaudio, source, adapters)


def _built(accelerator: Accelerator, config: UniAudioTrainingConfig) -> str:
    check_order(config.stage, (), config.model)
    if config.audio_tokenizer is None:
        raise ValueError(
            f"model={config.model} is no multi-stream LM: to build one around a text LLM, name its audio_tokenizer, too"
        )
    built = Path(config.output_dir) / EXTENDED_FOLDER
    if accelerator.is_main_process and not built.exists():
        uniaudio = UniAudio.create(
            config.model,
            config.audio_tokenizer,
            codebooks=config.codebooks,
            seed=config.seed,
            dtype=getattr(torch, config.dtype),
            **config.sizes.options(),
        )
        with atomic_folder(built) as temporary:
            uniaudio.save_pretrained(temporary)
    accelerator.wait_for_everyone()
    _check_codes(str(built), config)
    return str(built)


def _check_codes(model: str, config: UniAudioTrainingConfig) -> None:
    """Refuses an audio tokenizer with other codebooks than the model, before anything is trained on its codes."""
    assert config.audio_tokenizer is not None
    given = AudioTokenizer.from_pretrained(audio_tokenizer_or_mini(config.audio_tokenizer))
    try:
        check_codebooks(code_layout(given, config.codebooks), UniAudioLMConfig.from_pretrained(model))
    except ValueError as error:
        raise ValueError(f"audio_tokenizer={config.audio_tokenizer} does not fit {model}: {error}") from error


def _refuse_another_tokenizer(config: UniAudioTrainingConfig) -> None:
    _check_codes(find_source(config.model).model, config)
    raise ValueError(f"audio_tokenizer has no effect: {config.model} brings its own; leave it out")


def _weigh(uniaudio: UniAudio, config: UniAudioTrainingConfig) -> None:
    lm_config, weights = uniaudio.model.config, config.stream_loss_weights
    if weights is not None and len(weights) != lm_config.num_audio_streams:
        raise ValueError(
            f"stream_loss_weights has {len(weights)} weights, and the model {lm_config.num_audio_streams} audio "
            "streams: give one for each"
        )
    lm_config.text_loss_weight = config.text_loss_weight
    lm_config.stream_loss_weights = [1.0] * lm_config.num_audio_streams if weights is None else list(weights)


def _add_adapters(text_llm: Any, settings: TextLoRASettings) -> Any:
    """Puts adapters into the layers of the text LLM; what PEFT returns is kept aside, so that no name changes."""
    from peft import LoraConfig  # takes seconds, and only LoRA needs it
    from peft.tuners.lora import LoraModel

    trainable = [one for one in text_llm.parameters() if one.requires_grad]
    assert not trainable  # PEFT freezes what it adapts
    adapter = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=adapted_layers(text_llm, settings.target_modules),
    )
    with without_warnings_of_peft():
        return LoraModel(text_llm, adapter, _ADAPTER)


def save_trained_model(
    accelerator: Accelerator, prepared: nn.Module, start: StartingPoint, config: UniAudioTrainingConfig
) -> Path:
    """Writes the trained LM with its processor, adapters merged; all processes must call it, and it is the last thing.

    Args:
        accelerator: the run's accelerator.
        prepared: the prepared `StreamLosses`.
        start: what the run started from; its adapters are gone afterwards.
        config: the run.

    Returns:
        The folder, for `UniAudio.from_pretrained` and the next stage.
    """
    folder = Path(config.output_dir) / MODEL_FOLDER
    if accelerator.is_main_process:
        model = start.uniaudio.model
        if start.adapters is not None:
            start.adapters.merge_and_unload()
        model.requires_grad_(True)
        model.config.trained_stages = with_stage(model.config.trained_stages, config.stage)
        with atomic_folder(folder) as temporary:
            start.uniaudio.save_pretrained(temporary)
    accelerator.wait_for_everyone()
    return folder
