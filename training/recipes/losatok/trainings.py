"""Tokenizers that the experiment trains, alike but for seed and weight of the divergence; each of them once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.program import ProgramError
from audiollm.training.recipes.launching import launch_trainer

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
        self._num_threads = num_threads
        self._cells = Cells(folder)
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
            return [*named, "--max_steps", last, "--eval_every", last, "--eval_clips", str(EVAL_CLIPS)]

        cell = Cell("trained", f"tokenizer-{weight:g}", f"seed{seed}")
        self._once(cell, self.identity(weight), run, "losatok_small_tokenizer.yaml", flags, seed)
        return run

    def _semantic(self, seed: int) -> Path:
        run, settings = self._folder / "semantic" / f"seed{seed}", self.settings
        flags = ["--semantic.teacher", settings.teacher, "--semantic.latent_size", str(settings.latent_size)]
        flags += ["--max_steps", str(settings.semantic_steps)]
        cell = Cell("trained", "semantic", f"seed{seed}")
        self._once(cell, self._identity, run, "losatok_small_semantic.yaml", lambda: flags, seed)
        return run

    def _once(
        self,
        cell: Cell,
        identity: dict[str, Any],
        run: Path,
        config: str,
        flags: Callable[[], Sequence[str]],
        seed: int,
    ) -> None:
        def train() -> dict[str, Any]:
            self._train(config, flags(), run, seed)
            return {"run": f"{run.parent.name}/{run.name}"}

        self._cells.computed(cell, identity, train)
        # Only now, as without them a training that nobody knows to be complete could not be gone on with.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)

    def _train(self, config: str, flags: Sequence[str], run: Path, seed: int) -> None:
        log = run.parent / f"{run.name}.log"
        shared = ["--train_data", str(self.manifest(TRAIN)), "--eval_data", str(self.manifest(HELD_OUT))]
        shared += ["--seed", str(seed), "--resume", "latest", "--output_dir", str(run), *self.settings.flags]
        try:
            launch_trainer(TRAINER, config, *flags, *shared, num_threads=self._num_threads, log=log)
        except subprocess.CalledProcessError as error:
            raise ProgramError(
                f"training in {run} failed with exit status {error.returncode}; why is in {log}"
            ) from error
