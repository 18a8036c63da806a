"""Tokenizers that are trained alike but for the weight of the KL divergence: what they keep of sound and of classes."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from audiollm.benchmarks.codes.classes import held_out_parts
from audiollm.benchmarks.codes.features import LATENTS, encode_clips
from audiollm.benchmarks.codes.probing import probe_by_parts
from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.program import ProgramError
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.recipes.launching import launch_trainer

from .data import Task, write_manifest

TRAINER = "train_losatok.py"
EVAL_CLIPS = 64  # held-out clips that are decoded and compared


@dataclass(frozen=True, kw_only=True)
class DivergenceSettings:
    """Budget of the trainings; all else is in ``training/configs/losatok_small_*.yaml``."""

    teacher: str = "mini"
    """As ``semantic.teacher``; the small configs name the same."""

    semantic_steps: int = 500
    """Updates of the first stage, one training per seed."""

    tokenizer_steps: int = 2000
    """Updates of the second, one per seed and weight."""

    flags: tuple[str, ...] = ()
    """Further flags of both."""


def measure_divergence(
    tasks: Sequence[Task],
    weights: Sequence[float],
    seeds: Sequence[int],
    settings: DivergenceSettings,
    folder: Path,
    num_threads: int | None,
    tell: Callable[[str], None],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Trains and measures a tokenizer for each weight and seed; what is there is kept.

    Trainings that were stopped go on from their last checkpoint; checkpoints go when figures are there.

    Args:
        tasks: clips with classes, which are trained on, too.
        weights: of the divergence.
        seeds: of weights and order.
        settings: of the trainings.
        folder: of the run.
        num_threads: CPU threads of a training; None: all.
        tell: hears of progress.

    Returns:
        By weight, then by seed: what the trainer's last evaluation says, and probes.

    Raises:
        ValueError: a cell is of other settings.
        ProgramError: a training fails.
    """
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name in ("train", "held_out"):
        write_manifest(tasks, data / f"{name}.jsonl", training=name == "train")
    runs = _Runs(tasks, settings, folder, num_threads)
    cells, found = Cells(folder), dict[str, dict[str, dict[str, Any]]]()
    identity = {"tasks": {task.name: task.fingerprint for task in tasks}, "settings": asdict(settings)}
    for seed, weight in itertools.product(seeds, weights):
        cell = Cell("kl", f"{weight:g}", f"seed{seed}")
        is_new = not cells.path(cell).is_file()
        figures = cells.computed(cell, identity, partial(runs.figures, weight, seed))
        found.setdefault(f"{weight:g}", {})[str(seed)] = figures
        if is_new:
            tell(f"KL weight {weight:g}, seed {seed}: {cells.path(cell)}")
    return found


@dataclass(frozen=True)
class _Runs:
    """The trainings of an experiment."""

    tasks: Sequence[Task]
    settings: DivergenceSettings
    folder: Path
    num_threads: int | None

    def figures(self, weight: float, seed: int) -> dict[str, Any]:
        """Trains what is not there, and measures it."""
        semantic = self.folder / "semantic" / f"seed{seed}"
        if not (semantic / MODEL_FOLDER).is_dir():
            steps = ["--semantic.teacher", self.settings.teacher, "--max_steps", str(self.settings.semantic_steps)]
            self._train("losatok_small_semantic.yaml", steps, semantic, seed)
        run, last = self.folder / "runs" / f"{weight:g}-seed{seed}", str(self.settings.tokenizer_steps)
        flags = ["--tokenizer.semantic", str(semantic), "--tokenizer.kl_weight", f"{weight:g}"]
        flags += ["--max_steps", last, "--eval_every", last, "--eval_clips", str(EVAL_CLIPS)]
        self._train("losatok_small_tokenizer.yaml", flags, run, seed)
        figures = _figures(self.tasks, run)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return figures

    def _train(self, config: str, flags: Sequence[str], run: Path, seed: int) -> None:
        data, log = self.folder / "data", run.parent / f"{run.name}.log"
        shared = ["--train_data", str(data / "train.jsonl"), "--eval_data", str(data / "held_out.jsonl")]
        shared += ["--seed", str(seed), "--resume", "latest", "--output_dir", str(run), *self.settings.flags]
        try:
            launch_trainer(TRAINER, config, *flags, *shared, num_threads=self.num_threads, log=log)
        except subprocess.CalledProcessError as error:
            raise ProgramError(
                f"training in {run} failed with exit status {error.returncode}; why is in {log}"
            ) from error


def _figures(tasks: Sequence[Task], run: Path) -> dict[str, Any]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = [line for line in map(json.loads, lines) if line["event"] == "eval"][-1]
    figures = {name: value for name, value in last.items() if name not in ("event", "step")}
    audio_tokenizer = AudioTokenizer.from_pretrained(run, encoder_only=True)
    rate = audio_tokenizer.sample_rate
    probes = {}
    for task in tasks:
        found = encode_clips(audio_tokenizer, [clip.load(rate) for clip in task.clips], rate)
        labels = [clip.label for clip in task.clips]
        probes[task.name] = probe_by_parts(found.vectors[LATENTS], labels, held_out_parts(task.clips))
    return figures | {"probes": probes}
