"""Diffusion transformers of several widths that learn latents, mel or a teacher's features, all else being alike."""
# Shapes: T frames, D size of a frame.

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.data.sampling import spread
from audiollm.diffusion.modeling import LatentDiffusion
from audiollm.tokenizer.base import AudioTokenizer, Latents
from audiollm.tokenizer.decoder.flow.solvers import Integration
from audiollm.training.diffusion.clips import TextClips
from audiollm.training.diffusion.config import DiffusionTrainingConfig, TextSettings, TransformerSettings
from audiollm.training.diffusion.evaluation import make_latents
from audiollm.training.diffusion.start import assemble
from audiollm.training.diffusion.trainer import DiffusionTrainer
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import running
from audiollm.training.losatok.start import open_teacher

from .data import Task, features_of, identity_of, name_of
from .judging import Judge, linear_loss
from .spaces import MelFrames, TeacherFeatures
from .trainings import HELD_OUT, TRAIN, Tokenizers

Space = Literal["latents", "mel", "features"]
BATCH = 16  # clips that are made at once
By = dict[str, dict[str, dict[str, Any]]]
"""Figures by space and width (``"latents/96"``), then by seed."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """The transformers; all of them see the same clips in the same order, with the same times of the flow."""

    spaces: tuple[Space, ...] = ("latents", "mel", "features")
    """What is made: a LoSATok's latents, log-mel, or the features of its teacher."""

    widths: tuple[int, ...] = (96, 384)
    """Of the transformers. Tokenizers of other weights are measured with the smallest."""

    kl_weight: float = 0.01
    """Weight of the divergence of the tokenizer whose latents stand beside mel and features."""

    num_mels: int = 128
    """Bins of the mel, of which four frames stand side by side, as in a LoSATok."""

    steps: int = 900
    """Updates."""

    evaluations: int = 3
    """Points of a curve, evenly spread over the updates."""

    num_layers: int = 4
    num_heads: int = 4
    text_size: int = 64
    """Width of the text encoder, of one block, that is trained along."""

    frames_per_update: int = 400
    max_seconds: float = 2.0
    """Of longer clips a part is learnt, and no longer ones are made."""

    learning_rate: float = 1e-3
    ema_decay: float = 0.99

    generated_clips: int = 96
    """Held-out clips whose classes are asked for, evenly spread."""

    sampling_steps: int = 10
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("spaces", "widths"):
            if not getattr(self, name) or len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"dit.{name}={list(getattr(self, name))}: give one or more, each once")
        if not 1 <= self.evaluations <= self.steps:
            raise ValueError(f"dit.evaluations={self.evaluations}: use 1 to dit.steps={self.steps}")
        if self.generated_clips < 2:
            raise ValueError(f"dit.generated_clips={self.generated_clips}: use 2 or more")

    @property
    def smallest(self) -> int:
        """The smallest width."""
        return min(self.widths)

    def identity(self) -> dict[str, Any]:
        """What decides the figures of a cell, but for its space, width and seed."""
        left_out = ("spaces", "widths", "kl_weight", "num_mels")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def is_due(self, step: int) -> bool:
        """Whether a point of the curve follows an update; the last is one."""
        return step * self.evaluations // self.steps > (step - 1) * self.evaluations // self.steps


def measure_generation(seeds: Sequence[int], generation: Generation) -> Iterator[By]:
    """Measures every space, width and seed; what is there is kept.

    Args:
        seeds: of weights and order, and of the tokenizers.
        generation: trains and measures.

    Yields:
        All figures so far, whenever there are more.

    Raises:
        ValueError: a cell is of other settings.
        ProgramError: the training of a tokenizer fails.
    """
    settings, found = generation.settings, By()
    for seed, width, space in itertools.product(seeds, settings.widths, settings.spaces):
        found.setdefault(f"{space}/{width}", {})[str(seed)] = generation.of_space(space, width, seed)
        yield found


class Generation:
    """Trains transformers, and measures what they make; each once.

    Args:
        tasks: clips with classes, which are what texts say.
        tokenizers: whose latents are made.
        settings: of the transformers.
        folder: of the run.
        tell: hears of progress.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        tokenizers: Tokenizers,
        settings: GenerationSettings,
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._tasks = tasks
        self._tokenizers = tokenizers
        self._folder = folder
        self._cells = Cells(folder)
        self._tell = tell

    def of_space(self, space: Space, width: int, seed: int) -> dict[str, Any]:
        """Figures of a space: ``curve`` and what is known without a transformer, see `_measure`."""
        if space == "latents":
            return self.of_latents(self.settings.kl_weight, width, seed)
        if space == "features":
            return self._figures(space, {"teacher": self._teacher}, width, seed, lambda: self._listener)
        num_mels = self.settings.num_mels
        return self._figures(space, {"num_mels": num_mels}, width, seed, lambda: MelFrames(num_mels))

    def of_latents(self, weight: float, width: int, seed: int) -> dict[str, Any]:
        """The same of the latents of a tokenizer."""

        def opened() -> AudioTokenizer:
            return AudioTokenizer.from_pretrained(self._tokenizers.trained(weight, seed))

        wanted = {"teacher": self._teacher, "tokenizer": self._tokenizers.identity(weight)}
        return self._figures(f"latents-{weight:g}", wanted, width, seed, opened)

    @property
    def _teacher(self) -> str:
        return name_of(self._tokenizers.settings.teacher)

    @cached_property
    def _listener(self) -> TeacherFeatures:
        source = self._tokenizers.settings.teacher
        return TeacherFeatures(open_teacher(source), self._teacher)

    @cached_property
    def _judge(self) -> Judge:
        source, folder = self._tokenizers.settings.teacher, self._folder / "features"
        return Judge(self._tasks, {task.name: features_of(source, task, folder, self._tell) for task in self._tasks})

    def _figures(
        self, name: str, wanted: Mapping[str, Any], width: int, seed: int, opened: Callable[[], AudioTokenizer]
    ) -> dict[str, Any]:
        cell = Cell("dit", f"{name}-width{width}", f"seed{seed}")
        identity = {**identity_of(self._tasks), "settings": self.settings.identity(), **wanted, "width": width}
        is_new = not self._cells.path(cell).is_file()
        figures = self._cells.computed(cell, identity, lambda: self._train(opened(), cell, width, seed))
        if is_new:
            self._tell(f"DiT: {cell.name}, {figures['seconds']} s")
        return figures

    def _train(self, space: AudioTokenizer, cell: Cell, width: int, seed: int) -> dict[str, Any]:
        folder = self._folder / "generation" / cell.name
        shutil.rmtree(folder, ignore_errors=True)  # of one that was stopped: it begins anew
        config = self._config(width, seed, folder)
        started = time.perf_counter()
        with running(start_data_parallel(config)) as accelerator:
            figures = self._measure(accelerator, config, space)
        return figures | {"seconds": round(time.perf_counter() - started)}

    def _config(self, width: int, seed: int, folder: Path) -> DiffusionTrainingConfig:
        settings = self.settings
        return DiffusionTrainingConfig(
            train_data=str(self._tokenizers.manifest(TRAIN)),
            eval_data=str(self._tokenizers.manifest(HELD_OUT)),
            audio_tokenizer="opened",
            output_dir=str(folder),
            transformer=TransformerSettings(
                hidden_size=width, num_layers=settings.num_layers, num_heads=settings.num_heads
            ),
            text=TextSettings(size=settings.text_size, num_layers=1, num_heads=settings.num_heads),
            max_steps=settings.steps,
            max_seconds=settings.max_seconds,
            frames_per_update=settings.frames_per_update,
            frames_per_pass=settings.frames_per_update,
            learning_rate=settings.learning_rate,
            warmup_ratio=0.02,
            ema_decay=settings.ema_decay,
            normalisation_clips=10**6,
            cache_dir=str(self._folder / "latents"),
            mono="first",
            eval_clips=0,
            seed=seed,
        )

    def _measure(
        self, accelerator: Accelerator, config: DiffusionTrainingConfig, space: AudioTokenizer
    ) -> dict[str, Any]:
        """Trains a transformer.

        Returns:
            ``size`` D of a frame, ``weights`` of the transformer, ``linear_loss``, ``heard`` of recordings that went
            into the space and back, and ``curve``: for each evaluation ``step``, ``loss`` (of a normalised number),
            ``relative_loss`` (over the linear one), ``heard`` and ``probes`` (on the frames themselves).
        """
        set_seed(config.seed)
        run, model = assemble(accelerator, config, space)
        trainer = DiffusionTrainer(run, model)
        held_out = run.held_out
        assert held_out is not None
        chosen = spread(range(len(held_out)), self.settings.generated_clips)
        known = {
            run.train.id(number): model.normalise(run.train.latents(number).mean) for number in range(len(run.train))
        }
        linear, curve = 0.0, list[dict[str, Any]]()
        for step in range(1, self.settings.steps + 1):
            trainer.update(step, trainer.batch(step))
            if not self.settings.is_due(step):
                continue
            evaluation = trainer.evaluate(step, Path(config.output_dir))
            linear = linear or linear_loss(torch.cat(list(known.values())), [*map(float, evaluation["loss_by_time"])])
            with trainer.measured():
                made = self._made(model, held_out, chosen)
            point = {"step": step, **evaluation, "relative_loss": evaluation["loss"] / linear}
            means = {name: frames.mean(dim=0) for name, frames in known.items()}
            normalised = {name: model.normalise(frames) for name, frames in made.items()}
            point |= {"heard": self._heard(space, made), "probes": self._judge.probes(means, normalised)}
            curve.append(point)
        true = {held_out.id(number): self._true(held_out, number, model) for number in chosen}
        return {
            "size": model.config.latent_size,
            "weights": sum(one.numel() for one in model.transformer.parameters()),
            "linear_loss": linear,
            "heard": self._heard(space, true),
            "curve": curve,
        }

    def _made(self, model: LatentDiffusion, clips: TextClips, chosen: Sequence[int]) -> dict[str, Tensor]:
        integration = Integration(self.settings.sampling_steps, self.settings.guidance, sway=model.config.sway)
        made = {}
        for first in range(0, len(chosen), BATCH):
            part = chosen[first : first + BATCH]
            for number, frames in zip(part, make_latents(model, clips, part, integration), strict=True):
                made[clips.id(number)] = frames
        return made

    def _true(self, clips: TextClips, number: int, model: LatentDiffusion) -> Tensor:
        return clips.latents(number).mean[: model.config.max_frames]

    def _heard(self, space: Any, frames: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the teacher tells of frames: of its own features at once, of others when they are sound."""
        if isinstance(space, TeacherFeatures):
            return self._judge.heard(frames)
        features = {}
        for name, one in frames.items():
            [waveform] = space.decode(Latents(one[None], torch.tensor([len(one)])))
            features[name] = self._listener.frames(waveform)
        return self._judge.heard(features)
