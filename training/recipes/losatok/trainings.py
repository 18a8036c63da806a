"""Tokenizers that the experiment trains, alike but for seed and weight of the divergence; each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.cells import Cell
from audiollm.training.recipes.kept_trainings import KeptTrainings

from .data import Task, identity_of, write_manifest

TRAINER = "train_losatok.py"
EVAL_CLIPS = 64  # held-out clips that are decoded and compared
TRAIN, HELD_OUT = "train", "held_out"


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Budget of the trainings; all else is in ``training/configs/losatok_small_*.yaml``."""

    teacher: str = "mini"
    """As ``semantic.teacher``; the small configs name the same."""

    latent_size: int = 128
    """Numbers of a latent; the small configs have half as many."""

    semantic_steps: int = 500
    """Updates of the first stage, one training per seed."""

    tokenizer_steps: int = 1000
    """Updates of the second, one per seed and weight."""

    flags: tuple[str, ...] = ()
    """Further flags of both."""


class Tokenizers:
    """The trainings of an experiment, by weight of the divergence and seed.

    Args:
        tasks: whose clips are learnt from.
        settings: of the trainings.
        folder: of the run.
        num_threads: CPU threads of a training; None: all.
    """

    def __init__(
        self, tasks: Sequence[Task], settings: TokenizerSettings, folder: Path, num_threads: int | None
    ) -> None:
        self.settings = settings
        self._folder = folder
        self._trainings = KeptTrainings(folder, num_threads)
        self._identity = identity_of(tasks) | {"settings": asdict(settings)}
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for name in (TRAIN, HELD_OUT):
            write_manifest(tasks, self.manifest(name), training=name == TRAIN)

    def manifest(self, name: str) -> Path:
        """Records of the clips to learn from (``train``), or of the others (``held_out``)."""
        return self._folder / "data" / f"{name}.jsonl"

    def identity(self, weight: float) -> dict[str, Any]:
        """What decides the tokenizer of a weight, beside the seed."""
        return self._identity | {"weight": weight}

    def trained(self, weight: float, seed: int) -> Path:
        """The run of a tokenizer; it is trained if it is not there, from its last checkpoint if there is one.

        Raises:
            ValueError: one of other settings is there.
            ProgramError: a training fails.
        """
        run, last = self._folder / "runs" / f"{weight:g}-seed{seed}", str(self.settings.tokenizer_steps)

        def flags() -> list[str]:
            named = ["--tokenizer.semantic", str(self._semantic(seed)), "--tokenizer.kl_weight", f"{weight:g}"]
            named += ["--max_steps", last, "--eval_every", last, "--eval_clips", str(EVAL_CLIPS)]
            return [*named, *self._shared(seed)]

        cell = Cell("trained", f"tokenizer-{weight:g}", f"seed{seed}")
        return self._trainings.once(cell, self.identity(weight), run, TRAINER, "losatok_small_tokenizer.yaml", flags)

    def _semantic(self, seed: int) -> Path:
        run, settings = self._folder / "semantic" / f"seed{seed}", self.settings
        flags = ["--semantic.teacher", settings.teacher, "--semantic.latent_size", str(settings.latent_size)]
        flags += ["--max_steps", str(settings.semantic_steps), *self._shared(seed)]
        cell = Cell("trained", "semantic", f"seed{seed}")
        return self._trainings.once(cell, self._identity, run, TRAINER, "losatok_small_semantic.yaml", lambda: flags)

    def _shared(self, seed: int) -> list[str]:
        """Flags of both."""
        data = ["--train_data", str(self.manifest(TRAIN)), "--eval_data", str(self.manifest(HELD_OUT))]
        return [*data, "--seed", str(seed), *self.settings.flags]
