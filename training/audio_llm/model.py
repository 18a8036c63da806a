"""The model of a run: loaded, extended, given adapters, and saved as a plain Audio-LLM folder at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from audiollm.data.files.atomic import atomic_folder
from audiollm.loading import refuse_quantized
from audiollm.modeling import AudioLLM
from audiollm.sources.places import EXTENDED_FOLDER
from audiollm.training.loop.config import MODEL_FOLDER

from .adapters import add_adapters, merge_adapter
from .config import LoRASettings, SFTConfig

ADAPTER_FOLDER = "adapter"


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
                    codebooks=config.codebooks,
                    code_order=config.code_order,
                    seed=config.seed,
                    dtype=getattr(torch, config.dtype),
                ),
            )
        accelerator.wait_for_everyone()
        source = str(extended)
    audio_llm = AudioLLM.from_pretrained(
        source, dtype=getattr(torch, config.dtype), attn_implementation=config.attn_implementation
    )
    refuse_quantized(audio_llm.model, source, "trained")
    audio_llm.processor.audio_device = accelerator.device
    audio_llm.processor.accepted_codes = frozenset(config.accept_codes_of)
    trained: nn.Module = audio_llm.model
    if config.gradient_checkpointing:
        recompute_activations(audio_llm.model)
    if config.lora is not None:
        adapted = add_adapters(audio_llm, config.lora)
        # As it was named: PEFT would tell where "mini" lies in this installation.
        adapted.peft_config["default"].base_model_name_or_path = source
        trained = adapted
    return StartingPoint(audio_llm, trained, source)


class SavingSettings(Protocol):
    """What saving needs to know of a run."""

    @property
    def output_dir(self) -> str:
        """Folder of the run."""

    @property
    def lora(self) -> LoRASettings | None:
        """Adapters, if they were trained."""

    @property
    def dtype(self) -> str:
        """Type of the weights."""


def save_trained_model(
    accelerator: Accelerator,
    prepared: nn.Module,
    start: StartingPoint,
    config: SavingSettings,
    prefix: str = "model.",
) -> Path:
    """Writes the trained Audio-LLM as a plain folder; all processes must call it.

    With LoRA the adapter is saved too, and the model is the starting point with the saved adapter merged into it: what
    is on the disk is what was merged.

    Args:
        accelerator: the run's accelerator.
        prepared: the prepared `TargetTokenLoss`.
        start: what the run started from.
        config: the run.
        prefix: what the names of weights begin with in ``prepared`` and not in what is trained.

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
        weights = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        weights = {name: tensor for name, tensor in weights.items() if name not in tied}
        if config.lora is None:
            _replace_folder(folder / MODEL_FOLDER, start.audio_llm, weights)
        else:
            # Or else PEFT asks the Hub about the base's vocabulary; the rows that were trained are in the adapter.
            _replace_folder(folder / ADAPTER_FOLDER, start.trained, weights, save_embedding_layers=False)
            _replace_folder(folder / MODEL_FOLDER, merge_adapter(start.source, folder / ADAPTER_FOLDER, config.dtype))
    accelerator.wait_for_everyone()
    return folder / MODEL_FOLDER


def recompute_activations(model: Any) -> None:
    """Keeps the inputs of layers alone for the backward pass, in which the layers are computed again."""
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name from transformers 5.23 on
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def _replace_folder(
    folder: Path, saved: Any, state_dict: dict[str, torch.Tensor] | None = None, **options: Any
) -> None:
    """Saves into a temporary folder that takes the place of ``folder`` when it is complete."""
    with atomic_folder(folder) as temporary:
        if state_dict is None:
            saved.save_pretrained(temporary)
        else:
            saved.save_pretrained(temporary, state_dict=state_dict, **options)
