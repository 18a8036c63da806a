"""Parts that the trainers of flow model and vocoder share: surroundings, interface, clipping, means of losses.

The update of the flow model and its even times are those of any flow whose passes count as much as they have frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.ema import ExponentialMovingAverage
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import learning_rate_figures, set_learning_rates
from audiollm.training.recordings.segments import clip_generator

from .config import DecoderTrainingConfig
from .shards import DecoderItems

GOLDEN_RATIO = 0.6180339887498949


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


def mean_losses(
    accelerator: Accelerator,
    config: RunConfig,
    step: int,
    passes: Sequence[tuple[Sequence[str], Mapping[str, Tensor]]],
    shares: Sequence[float],
) -> dict[str, float]:
    """Means over the passes of an update, of all processes.

    Args:
        accelerator: the run's.
        config: its settings.
        step: the update.
        passes: of this process: ids of their clips, and losses by name, ``loss`` among them; scalars, detached.
        shares: what part of the update each pass is.

    Raises:
        NonFiniteLossError: if one is no number; the clips are written down.
    """
    names = list(passes[0][1])
    table = torch.stack([torch.stack([losses[name] for name in names]) for _, losses in passes])
    means = torch.tensor(shares, device=table.device) @ table
    line: dict[str, float] = dict(zip(names, accelerator.reduce(means, "sum").tolist(), strict=True))
    by_pass = [(ids, losses["loss"]) for ids, losses in passes]
    for name, value in line.items():
        stop_unless_finite(accelerator, config, step, name, value, by_pass)
    return line


def even_times(seeds: Sequence[int], positions: Sequence[int]) -> list[float]:
    """Times of the flow in [0, 1), spread evenly over the clips of an update, which makes the loss less noisy.

    As in Kingma et al., 2021 (arXiv:2107.00630).

    Args:
        seeds: of the run, and the update.
        positions: of the clips in the update.
    """
    # Seeded without a position, hence the same in every process and pass of the update.
    first = torch.rand((), generator=clip_generator(*seeds)).item()
    # Multiples of the golden ratio are evenly spread in [0, 1) however many there are.
    return [(first + position * GOLDEN_RATIO) % 1.0 for position in positions]


class FramePass(Protocol):
    """The clips of one forward and backward pass."""

    @property
    def ids(self) -> list[str]:
        """Of the clips."""

    @property
    def num_frames(self) -> int:
        """That something is learnt of."""

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """Arguments of the model, which returns the mean loss over these frames."""


@dataclass(frozen=True)
class FrameUpdate:
    """What makes an update of a model whose passes count as much as they have frames.

    Attributes:
        accelerator: the run's.
        config: its settings.
        model: prepared.
        optimizer: prepared.
        ema: averages of its weights; None: none are kept.
        total_steps: updates of the run.
    """

    accelerator: Accelerator
    config: RunConfig
    model: nn.Module
    optimizer: Any
    ema: ExponentialMovingAverage | None
    total_steps: int

    def make(
        self, step: int, passes: Sequence[FramePass], total_frames: int, stand_in: FramePass | None
    ) -> dict[str, Any]:
        """Makes an update; returns its loss, learning rate and gradient norm.

        Args:
            step: its number.
            passes: of this process.
            total_frames: of all processes.
            stand_in: takes part in the exchange of gradients where ``passes`` is empty, with nothing to add.

        Raises:
            NonFiniteLossError: if loss or gradient is no number.
        """
        accelerator, config = self.accelerator, self.config
        rates = set_learning_rates(self.optimizer, step, self.total_steps, config)
        losses: list[Tensor] = []
        shares = [one.num_frames / total_frames for one in passes]
        if not passes:  # fewer clips than processes
            assert stand_in is not None
            passes, shares = [stand_in], [0.0]
        for number, (one, share) in enumerate(zip(passes, shares, strict=True), start=1):
            is_last = number == len(passes)
            with nullcontext() if is_last else accelerator.no_sync(self.model):
                loss = self.model(**one.inputs(accelerator.device))
                losses.append(loss.detach())
                # A pass counts as much as it has frames; the gradients are averaged over the processes.
                accelerator.backward(loss * (share * accelerator.num_processes))
        weighted = torch.stack(losses) @ torch.tensor(shares, device=accelerator.device)
        mean_loss = float(accelerator.reduce(weighted, "sum"))
        by_pass = [(one.ids, float(loss)) for one, loss in zip(passes, losses, strict=True)]
        stop_unless_finite(accelerator, config, step, "loss", mean_loss, by_pass)
        grad_norm = clip_gradients(accelerator, self.model, config)
        stop_unless_finite(accelerator, config, step, "gradient norm", grad_norm, by_pass)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update()
        return {"loss": mean_loss, **learning_rate_figures(rates), "grad_norm": grad_norm}
