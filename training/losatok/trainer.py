"""What both stages' trainers share: segments of an update, passes and their sums, averaged weights, evaluations.

Everything random of a segment is drawn from a generator of its own, so an update depends neither on how many processes
share it, nor on how it is cut into passes, nor on where a run was interrupted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from audiollm.tokenizer.losatok.configuration import SAMPLE_RATE
from audiollm.training.decoder.base import clip_gradients
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.ema import ExponentialMovingAverage, averaged
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import learning_rate_figures, make_optimizer, set_learning_rates
from audiollm.training.recordings.checked import Recordings

from .config import LoSATokTrainingConfig
from .segments import SegmentPass, make_pass, segment_order


@dataclass(frozen=True)
class LoSATokRun:
    """The surroundings of a run.

    Attributes:
        accelerator: its processes.
        config: its settings.
        train: recordings to train on.
        held_out: recordings to evaluate on, if any.
    """

    accelerator: Accelerator
    config: LoSATokTrainingConfig
    train: Recordings
    held_out: Recordings | None


class StageTrainer(ABC):
    """Trains one stage, an update at a time.

    Args:
        run: its surroundings.
        objective: what is trained and computes losses; on the run's device.
        latent_size: of the latents, for their noise.

    Raises:
        ValueError: if there are fewer segments in an update than processes.
    """

    def __init__(self, run: LoSATokRun, objective: nn.Module, latent_size: int) -> None:
        config, accelerator = run.config, run.accelerator
        self.run = run
        self.latent_size = latent_size
        if config.segments_per_update < accelerator.num_processes:
            raise ValueError(
                f"segments_per_update={config.segments_per_update} for {accelerator.num_processes} processes: raise it"
            )
        self._order = segment_order(run.train, config.segment_tokens, config.segments_per_update, config.seed)
        self.total_steps = config.max_steps or self._order.num_updates(config.num_epochs or 1.0)
        # Of the module itself, before it is wrapped: the averages' names are those of the saved weights.
        self._ema = ExponentialMovingAverage(objective, config.ema_decay) if config.ema_decay else None
        self.model, self.optimizer = accelerator.prepare(
            objective, make_optimizer(objective, config, accelerator.device)
        )
        self.model.train()

    @property
    def extras(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds beside model and optimizer."""
        return {} if self._ema is None else {"ema": self._ema}

    def epoch(self, step: int) -> float:
        """How often an average token has been trained on after an update."""
        return self._order.epoch(step)

    def batch(self, step: int) -> list[SegmentPass]:
        """Cuts this process's segments of an update out of the recordings; called from another thread."""
        accelerator, config = self.run.accelerator, self.run.config
        positions = list(range(config.segments_per_update))
        mine = share_of_process(positions, accelerator.process_index, accelerator.num_processes)
        size = config.segments_per_pass
        return [
            make_pass(self.run.train, self._order, step, mine[start : start + size], self.latent_size)
            for start in range(0, len(mine), size)
        ]

    def update(self, step: int, batch: list[SegmentPass]) -> dict[str, Any]:
        """Makes an update; returns what its line of the metrics says beside step, epoch and speed.

        Raises:
            NonFiniteLossError: if a loss or the gradient is no number; the recordings are written down.
        """
        accelerator, config = self.run.accelerator, self.run.config
        rates = set_learning_rates(self.optimizer, step, self.total_steps, config)
        measured: list[dict[str, Tensor]] = []
        shares = [len(one.waveforms) / config.segments_per_update for one in batch]
        for number, (one, share) in enumerate(zip(batch, shares, strict=True), start=1):
            # Gradients are averaged over the processes, and a pass counts as much as it has segments.
            scale, is_last = share * accelerator.num_processes, number == len(batch)
            with nullcontext() if is_last else accelerator.no_sync(self.model):
                parts = self.accumulate(step, one.to(accelerator.device), scale, is_last)
            measured.append({name: part.detach().float() for name, part in parts.items()})
        means = {
            name: accelerator.reduce(
                torch.stack([parts[name] * share for parts, share in zip(measured, shares, strict=True)]).sum(dim=0),
                "sum",
            )
            for name in measured[0]
        }
        line: dict[str, Any] = {name: float(value) for name, value in means.items() if value.dim() == 0}
        by_pass = [(one.ids, _worst(parts)) for one, parts in zip(batch, measured, strict=True)]
        for name, value in line.items():
            stop_unless_finite(accelerator, config, step, name, value, by_pass)
        line |= self.told({name: value for name, value in means.items() if value.dim()})
        line |= learning_rate_figures(rates)
        line["grad_norm"] = clip_gradients(accelerator, self.model, config)
        stop_unless_finite(accelerator, config, step, "gradient norm", line["grad_norm"], by_pass)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self._ema is not None:
            self._ema.update()
        line |= self.after_update(step, by_pass)
        line["audio_seconds"] = config.segments_per_update * self._order.segment_frames / 25
        return line

    @abstractmethod
    def accumulate(self, step: int, one: SegmentPass, scale: float, is_last: bool) -> dict[str, Tensor]:
        """Adds a pass's gradients; returns its losses (``loss`` among them), as means over its segments."""

    def told(self, vectors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a line says of the results of `accumulate` that are no scalars."""
        return {}

    def after_update(self, step: int, passes: Sequence[tuple[Sequence[str], Tensor]]) -> dict[str, Any]:
        """What else belongs to an update; returns what its line says of it.

        Args:
            step: of the run.
            passes: ids and losses of this process's passes, for errors.
        """
        return {}

    @abstractmethod
    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Measures the averaged weights on held-out recordings; all processes call it. Leaves files in ``folder``."""

    @abstractmethod
    def write_model(self, folder: Path) -> None:
        """Writes the model with the weights that it has."""

    def save(self, folder: Path) -> None:
        """Writes the model with averaged weights; all processes call it, one writes."""
        with averaged(self._ema):
            if self.run.accelerator.is_main_process:
                self.write_model(folder)
        self.run.accelerator.wait_for_everyone()

    def held_out_clips(self) -> list[tuple[int, Tensor]]:
        """This process's share of the recordings that evaluations look at: numbers and waveforms ``[N]``."""
        recordings, accelerator, config = self.run.held_out, self.run.accelerator, self.run.config
        assert recordings is not None
        numbers = list(range(min(len(recordings), config.eval_clips)))
        mine = share_of_process(numbers, accelerator.process_index, accelerator.num_processes)
        longest = int(config.eval_seconds * SAMPLE_RATE)
        return [(number, recordings.waveform(number)[:longest]) for number in mine]


def _worst(parts: Mapping[str, Tensor]) -> Tensor:
    """Of a pass's losses the one that is no number, or the loss itself."""
    wrong = [part for part in parts.values() if not torch.isfinite(part).all()]
    return wrong[0].flatten()[~torch.isfinite(wrong[0].flatten())][0] if wrong else parts["loss"]
