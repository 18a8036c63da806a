"""The model of a run: loaded, extended, given adapters, and saved as a plain Audio-LLM folder at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import nn

from audiollm.data.files.atomic import atomic_folder
from audiollm.modeling import AudioLLM
from audiollm.training.loop.config import MODEL_FOLDER

from .config import LoRASettings, SFTConfig

EXTENDED_FOLDER = "extended"
ADAPTER_FOLDER = "adapter"
logger = get_logger(__name__)


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        audio_llm: the Audio-LLM; its processor encodes the data.
        trained: what is trained: ``audio_llm.model``, or a PEFT model around it.
        source: folder or Hub id that the Audio-LLM was loaded from.
    """

    audio_llm: AudioLLM
    trained: nn.Module
    source: str


def load_starting_point(accelerator: Accelerator, config: SFTConfig) -> StartingPoint:
    """Loads the Audio-LLM on every process, after extending a text LLM if the config asks for it.

    The vocabulary is extended by one process and saved, before DeepSpeed splits any weight, so that ZeRO-3 needs no
    special case and a resumed run starts from the same rows.
    """
    source = config.model
    if config.audio_tokenizer is not None:
        extended = Path(config.output_dir) / EXTENDED_FOLDER
        if accelerator.is_main_process and not extended.exists():
            _replace_folder(
                extended,
                AudioLLM.create(
                    config.model,
                    audio_tokenizer=config.audio_tokenizer,
                    seed=config.seed,
                    dtype=getattr(torch, config.dtype),
                ),
            )
        accelerator.wait_for_everyone()
        source = str(extended)
    audio_llm = AudioLLM.from_pretrained(
        source, dtype=getattr(torch, config.dtype), attn_implementation=config.attn_implementation
    )
    audio_llm.processor.audio_device = accelerator.device
    audio_llm.processor.accepted_codes = frozenset(config.accept_codes_of)
    trained: nn.Module = audio_llm.model
    if config.gradient_checkpointing:
        _recompute_activations(audio_llm.model)
    if config.lora is not None:
        trained = add_adapters(audio_llm, config.lora)
    return StartingPoint(audio_llm, trained, source)


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
        target_modules=_adapted_layers(audio_llm.model, settings.target_modules),
        trainable_token_indices=rows,
    )
    return get_peft_model(audio_llm.model, lora)


def _adapted_layers(model: Any, named: Iterable[str] | None) -> list[str]:
    """Names of the layers that get an adapter, each of which exists: PEFT would leave out the others in silence."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    output = model.get_output_embeddings()
    layers = {id(module) for module in linear if module is not output}
    names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if id(module) in layers})
    stacked = sorted({name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.dim() == 3})
    kind = type(model).__name__
    if not names:
        raise ValueError(f"lora: {kind} has no linear layers that could get an adapter; train all weights instead")
    missing = sorted(set(named or ()) - set(names))
    if missing:
        raise ValueError(
            f"lora.target_modules: {kind} has no linear layers {', '.join(missing)}; choose among "
            f"{', '.join(names)}, or leave target_modules out for all of them"
        )
    if stacked:
        logger.warning("lora: the experts of %s (%s) get no adapters and keep their weights", kind, ", ".join(stacked))
    return names if named is None else list(named)


def save_trained_model(accelerator: Accelerator, prepared: nn.Module, start: StartingPoint, config: SFTConfig) -> Path:
    """Writes the trained Audio-LLM as a plain folder; all processes must call it.

    With LoRA the adapter is saved too, and the model is the starting point with the saved adapter merged into it: what
    is on the disk is what was merged.

    Args:
        accelerator: the run's accelerator.
        prepared: the prepared :class:`TargetTokenLoss`.
        start: what the run started from.
        config: the run.

    Returns:
        The folder, for ``AudioLLM.from_pretrained``.
    """
    folder = Path(config.output_dir)
    # Under ZeRO-3 this collects the weights from all processes.
    state = accelerator.get_state_dict(prepared)
    if accelerator.is_main_process:
        # DeepSpeed copies tied weights apart: keep the one that names them.
        tied = {name for name, _ in start.trained.named_parameters(remove_duplicate=False)}
        tied -= {name for name, _ in start.trained.named_parameters()}
        weights = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        weights = {name: tensor for name, tensor in weights.items() if name not in tied}
        if config.lora is None:
            _replace_folder(folder / MODEL_FOLDER, start.audio_llm, weights)
        else:
            _replace_folder(folder / ADAPTER_FOLDER, start.trained, weights)
            _replace_folder(folder / MODEL_FOLDER, merge_adapter(start.source, folder / ADAPTER_FOLDER, config.dtype))
    accelerator.wait_for_everyone()
    return folder / MODEL_FOLDER


def merge_adapter(source: str, adapter: Path, dtype: str) -> AudioLLM:
    """Loads an Audio-LLM and merges a saved adapter into its weights."""
    from peft import PeftModel  # takes seconds, and only LoRA needs it

    audio_llm = AudioLLM.from_pretrained(source, dtype=getattr(torch, dtype))
    audio_llm.model = PeftModel.from_pretrained(audio_llm.model, adapter).merge_and_unload()
    return audio_llm


def _recompute_activations(model: Any) -> None:
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name from transformers 5.23 on
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def _replace_folder(folder: Path, saved: Any, state_dict: dict[str, torch.Tensor] | None = None) -> None:
    """Saves into a temporary folder that takes the place of ``folder`` when it is complete."""
    with atomic_folder(folder) as temporary:
        if state_dict is None:
            saved.save_pretrained(temporary)
        else:
            saved.save_pretrained(temporary, state_dict=state_dict)
