"""Training of a diffusion transformer: flow matching on latents, an update at a time."""
# Shapes: B clips, T frames, D latent size.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.diffusion.generator import AudioGenerator
from audiollm.diffusion.modeling import LatentDiffusion
from audiollm.training.decoder.base import FrameUpdate
from audiollm.training.loop.batches import FrameBatches, cut_by_frames, share_of_process
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.ema import ExponentialMovingAverage, averaged
from audiollm.training.loop.optimizer import make_optimizer

from .batches import ClipDraw, DiffusionPass, draw_clip, make_pass
from .evaluation import evaluate
from .start import DiffusionRun


@dataclass(frozen=True)
class DiffusionBatch:
    """One process's part of an update."""

    passes: list[DiffusionPass]
    stand_in: DiffusionPass | None  # where there are no passes
    total_frames: int  # that are learnt, over all processes
    audio_seconds: float  # of all clips


class DiffusionTrainer:
    """Trains a model.

    Args:
        run: its surroundings.
        model: with the weights to start from.

    Raises:
        ValueError: if a clip does not fit into an update.
    """

    def __init__(self, run: DiffusionRun, model: LatentDiffusion) -> None:
        self.run = run
        config, accelerator = run.config, run.accelerator
        self._longest = model.config.max_frames
        self._lengths = [min(run.train.num_frames(index), self._longest) for index in range(len(run.train))]
        if max(self._lengths) > config.frames_per_update:
            raise ValueError(
                f"a clip of {max(self._lengths)} latents does not fit into an update of "
                f"frames_per_update={config.frames_per_update}: raise it, or lower max_seconds"
            )
        self._batches = FrameBatches(self._lengths, config.frames_per_update, config.seed)
        self.total_steps = config.max_steps or self._batches.num_updates(config.num_epochs or 1.0)
        self._module = model.to(accelerator.device)
        # Of the module itself, before it is wrapped: the averages' names are those of the saved weights.
        self._ema = ExponentialMovingAverage(model, config.ema_decay) if config.ema_decay else None
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(model, config, accelerator.device))
        self.model.train()
        self._update = FrameUpdate(accelerator, config, self.model, self.optimizer, self._ema, self.total_steps)

    @property
    def extras(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds beside model and optimizer."""
        return {} if self._ema is None else {"ema": self._ema}

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after an update."""
        return self._batches.epoch(step)

    def batch(self, step: int) -> DiffusionBatch:
        """Reads this process's clips of an update; called from another thread, one update ahead."""
        accelerator, config = self.run.accelerator, self.run.config
        clips, seeds = self._batches.batch(step), (config.seed, step)
        draws = [draw_clip(self._lengths[clip], config, seeds, position) for position, clip in enumerate(clips)]
        mine = share_of_process(list(range(len(clips))), accelerator.process_index, accelerator.num_processes)
        lengths = [draw.num_frames for draw in draws]
        groups = cut_by_frames(mine, lengths, config.frames_per_pass)
        return DiffusionBatch(
            [self._pass_of(clips, group, draws, seeds) for group in groups],
            None if groups else self._pass_of(clips, [0], draws, seeds),
            sum(draw.num_learnt for draw in draws),
            sum(lengths) / self._module.config.frame_rate,
        )

    def _pass_of(
        self, clips: Sequence[int], positions: Sequence[int], draws: Sequence[ClipDraw], seeds: tuple[int, int]
    ) -> DiffusionPass:
        indices = [clips[position] for position in positions]
        chosen = [draws[position] for position in positions]
        return make_pass(self.run.train, self._module, indices, positions, chosen, self.run.config, seeds)

    def update(self, step: int, batch: DiffusionBatch) -> dict[str, Any]:
        """Makes an update; returns what its line of the metrics says beside step, epoch and speed.

        Raises:
            NonFiniteLossError: if loss or gradient is no number; the recordings are written down.
        """
        line = self._update.make(step, batch.passes, batch.total_frames, batch.stand_in)
        return line | {"audio_seconds": batch.audio_seconds}

    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Measures the averaged weights on held-out recordings; all processes call it. Leaves files in ``folder``."""
        with self.measured() as model:
            return evaluate(self.run, model, folder / f"step_{step:06d}")

    @contextmanager
    def measured(self) -> Iterator[LatentDiffusion]:
        """The model as it is measured: in evaluation mode, with averaged weights."""
        self._module.eval()
        try:
            with averaged(self._ema), self.run.accelerator.autocast():
                yield self._module
        finally:
            self._module.train()

    def save(self, folder: Path) -> None:
        """Writes the model with averaged weights, and the audio tokenizer; all processes call it, one writes."""
        with averaged(self._ema):
            if self.run.accelerator.is_main_process:
                AudioGenerator(self._module, self.run.audio_tokenizer).save_pretrained(folder)
                self._module.train()
        self.run.accelerator.wait_for_everyone()
