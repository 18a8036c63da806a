"""Parts that the trainers of flow model and vocoder share: surroundings, interface, clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.config import RunConfig

from .config import DecoderTrainingConfig
from .shards import DecoderItems


@dataclass(frozen=True)
class DecoderRun:
    """The surroundings of a run.

    Attributes:
        accelerator: its processes.
        config: its settings; ``config.decoder`` holds the sizes of the decoder that the run starts from, if any.
        train_items: clips to train on.
        eval_items: held-out clips.
        codebook: the audio tokenizer's entries ``[V, D]``, if one is named.
    """

    accelerator: Accelerator
    config: DecoderTrainingConfig
    train_items: DecoderItems
    eval_items: DecoderItems | None
    codebook: Tensor | None = None


class DecoderTrainer(Protocol):
    """Trains one of the two models, an update at a time."""

    @property
    def model(self) -> nn.Module:
        """What the checkpoint holds as its weights, prepared."""

    @property
    def optimizer(self) -> Any:
        """Its optimizer, prepared."""

    @property
    def extras(self) -> Mapping[str, Stateful]:
        """What else a checkpoint holds."""

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""

    def batch(self, step: int) -> Any:
        """Reads this process's part of an update; called from another thread, one update ahead."""

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after an update."""

    def update(self, step: int, batch: Any) -> dict[str, Any]:
        """Makes an update; returns what its line of the metrics says beside step, epoch and speed.

        The line must hold ``loss`` and ``mel_frames`` (of all processes, without padding).
        """

    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Measures on the held-out clips; all processes call it. May leave files in ``folder``."""

    def save(self, folder: Path) -> None:
        """Writes the model in its present state; all processes call it, one writes."""


def clip_gradients(accelerator: Accelerator, module: nn.Module, config: RunConfig) -> float:
    """Clips the gradients of a prepared module; returns their norm before."""
    # max_norm=inf measures without clipping.
    return float(accelerator.clip_grad_norm_(module.parameters(), config.max_grad_norm or math.inf))
