"""Tokenizers that are trained alike but for the weight of the KL divergence: what they keep of sound and of classes,
and how well a diffusion transformer makes their latents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from audiollm.benchmarks.codes.classes import held_out_parts
from audiollm.benchmarks.codes.features import LATENTS, encode_clips
from audiollm.benchmarks.codes.probing import probe_by_parts
from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.recipes.kept_trainings import last_evaluation

from .data import Task
from .generation import Generation
from .trainings import Tokenizers

GENERATION = "generation"
By = dict[str, dict[str, dict[str, Any]]]
"""Figures by weight, then by seed: what the trainer's last evaluation says, probes, and those of `Generation`."""


def measure_divergence(
    tasks: Sequence[Task],
    weights: Sequence[float],
    seeds: Sequence[int],
    tokenizers: Tokenizers,
    generation: Generation,
    folder: Path,
    tell: Callable[[str], None],
) -> Iterator[By]:
    """Trains and measures a tokenizer for each weight and seed; what is there is kept.

    Trainings that were stopped go on from their last checkpoint; checkpoints go when a training is complete.

    Args:
        tasks: clips with classes, which are trained on, too.
        weights: of the divergence.
        seeds: of weights and order.
        tokenizers: the trainings.
        generation: makes latents, by a transformer of the smallest width.
        folder: of the run.
        tell: hears of progress.

    Yields:
        All figures so far, whenever there are more.

    Raises:
        ValueError: a cell is of other settings.
        ProgramError: a training fails.
    """
    cells, found = Cells(folder), By()
    for seed, weight in itertools.product(seeds, weights):
        cell = Cell("kl", f"{weight:g}", f"seed{seed}")
        is_new = not cells.path(cell).is_file()
        figures = cells.computed(cell, tokenizers.identity(weight), partial(_figures, tasks, tokenizers, weight, seed))
        if is_new:
            tell(f"KL weight {weight:g}, seed {seed}: {cells.path(cell)}")
        made = generation.of_latents(weight, generation.settings.smallest, seed)
        found.setdefault(f"{weight:g}", {})[str(seed)] = figures | {GENERATION: made}
        yield found


def _figures(tasks: Sequence[Task], tokenizers: Tokenizers, weight: float, seed: int) -> dict[str, Any]:
    run = tokenizers.trained(weight, seed)
    audio_tokenizer = AudioTokenizer.from_pretrained(run, encoder_only=True)
    rate = audio_tokenizer.sample_rate
    probes = {}
    for task in tasks:
        found = encode_clips(audio_tokenizer, [clip.load(rate) for clip in task.clips], rate)
        labels = [clip.label for clip in task.clips]
        probes[task.name] = probe_by_parts(found.vectors[LATENTS], labels, held_out_parts(task.clips))
    return last_evaluation(run) | {"probes": probes}
