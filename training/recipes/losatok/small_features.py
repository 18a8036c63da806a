"""What is left of a teacher's features that were made small: for simple readers, and of the teacher's own geometry."""
# Shapes: T frames of a clip, E feature size, D small size, C clips.

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiollm.benchmarks.codes.classes import held_out_parts
from audiollm.benchmarks.codes.probing import probe_by_parts
from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.tokenizer.losatok.bottleneck import reconstruction_loss, relation_loss
from audiollm.training.losatok.figures import effective_rank, spectrum

from .bottlenecks import METHODS, TRAINED, FitSettings, Method, Small, fit
from .data import Task, features_of, identity_of, name_of

TEACHER = "teacher"
"""Stands for a teacher's features as they are, among the methods."""
SHARE = 0.95  # of the variance, whose directions are counted


By = dict[str, dict[str, dict[str, Any]]]
"""Figures by size and method (``"128/pca"``, ``"full/teacher"``), then by seed (``"-"`` where nothing is drawn)."""


def measure_small_features(
    tasks: Sequence[Task],
    teachers: Sequence[str],
    sizes: Sequence[int],
    seeds: Sequence[int],
    settings: FitSettings,
    folder: Path,
    tell: Callable[[str], None],
) -> Iterator[dict[str, By]]:
    """Measures every way to make features small, cell by cell; what is there is kept.

    Args:
        tasks: clips with classes.
        teachers: as ``semantic.teacher`` of ``training/train_losatok.py``.
        sizes: that features are made.
        seeds: of what is trained.
        settings: of SemBo.
        folder: of the run.
        tell: hears of progress.

    Yields:
        All figures so far by teacher, see `By`, whenever there are more.

    Raises:
        ValueError: a cell is of other settings or features.
    """
    found = dict[str, By]()
    for source in teachers:
        name = name_of(source)
        clips = {task.name: features_of(source, task, folder / "features", tell) for task in tasks}
        for own in _of_teacher(name, tasks, clips, sizes, seeds, settings, Cells(folder), tell):
            found[name] = own
            yield found


def _of_teacher(
    teacher: str,
    tasks: Sequence[Task],
    clips: Mapping[str, Sequence[Tensor]],
    sizes: Sequence[int],
    seeds: Sequence[int],
    settings: FitSettings,
    cells: Cells,
    tell: Callable[[str], None],
) -> Iterator[By]:
    training = [
        clip
        for task in tasks
        for clip, is_training in zip(clips[task.name], task.is_training(), strict=True)
        if is_training and len(clip) > 1
    ]
    identity = {"teacher": teacher, **identity_of(tasks)}

    def compute(method: Method, size: int, seed: int) -> dict[str, Any]:
        return _figures(tasks, clips, fit(method, training, size, seed, settings))

    whole = cells.computed(Cell(teacher, TEACHER), identity, lambda: _teacher_figures(tasks, clips))
    found: By = {f"full/{TEACHER}": {"-": whole}}
    yield found
    for size, method in itertools.product(sizes, METHODS):
        of_method = found.setdefault(f"{size}/{method}", {})
        for seed in seeds if method in TRAINED else (None,):
            cell = Cell(teacher, f"{method}-{size}", None if seed is None else f"seed{seed}")
            wanted = identity | ({"fit": asdict(settings)} if method in TRAINED else {})
            is_new = not cells.path(cell).is_file()
            of_method["-" if seed is None else str(seed)] = cells.computed(
                cell, wanted, partial(compute, method, size, seed or 0)
            )
            if is_new:
                tell(f"{teacher}: {cell.name}")
            yield found


def _teacher_figures(tasks: Sequence[Task], clips: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """How many directions features use, by data, beside what readers tell from them."""
    figures = _figures(tasks, clips, lambda high: (high, high))
    frames = {name: torch.cat(list(own)) for name, own in clips.items()}
    frames["all"] = torch.cat(list(frames.values()))
    ranks = {}
    for name, features in frames.items():
        shares = torch.tensor(spectrum(features)).cumsum(dim=0)
        ranks[name] = {
            "frames": len(features),
            "effective_rank": effective_rank(features),
            "directions_of_95_percent": int((shares < SHARE).sum()) + 1,
        }
    return figures | {"feature_size": frames["all"].shape[1], "ranks": ranks}


def _figures(tasks: Sequence[Task], clips: Mapping[str, Sequence[Tensor]], small: Small) -> dict[str, Any]:
    """Probes on means of clips; on held-out clips both losses of the first stage, and the rank of what is small."""
    reconstruction, relation, held_out_frames, probes = [], [], [], {}
    for task in tasks:
        means = []
        for clip, is_training in zip(clips[task.name], task.is_training(), strict=True):
            with torch.no_grad():
                low, restored = small(clip)
            means.append(low.mean(dim=0).double().numpy())
            if not is_training:
                reconstruction.append(float(reconstruction_loss(restored[None], clip[None])))
                relation.append(float(relation_loss(low[None], clip[None])))
                held_out_frames.append(low)
        labels = [clip.label for clip in task.clips]
        probes[task.name] = probe_by_parts(np.stack(means), labels, held_out_parts(task.clips))
    return {
        "probes": probes,
        "reconstruction": float(np.mean(reconstruction)),
        "relation": float(np.mean(relation)),
        "effective_rank": effective_rank(torch.cat(held_out_frames)),
    }
