"""Measures of made frames that different spaces share: what a teacher hears in them, and what a line would reach."""
# Shapes: C clips, T frames of one, S frames of all, D size of a frame, E size of the teacher's features.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiollm.benchmarks.codes.probing import probe_by_parts
from audiollm.benchmarks.metrics.distances import frechet_distance

from .data import Task, record_id

READERS = ("logistic",)
"""The others are slow, or depend on a learning rate."""


class Judge:
    """Compares what was made with recordings.

    Args:
        tasks: whose clips.
        features: the teacher's of all clips, ``[T, E]`` each, by task.
    """

    def __init__(self, tasks: Sequence[Task], features: Mapping[str, Sequence[Tensor]]) -> None:
        self._classes = {record_id(task, clip): (task.name, clip.label) for task in tasks for clip in task.clips}
        self._features, self._means = dict[str, Tensor](), dict[str, Tensor]()
        for task in tasks:
            for clip, own, is_training in zip(task.clips, features[task.name], task.is_training(), strict=True):
                self._features[record_id(task, clip)] = own
                if is_training:
                    self._means[record_id(task, clip)] = own.mean(dim=0)

    def heard(self, made: Mapping[str, Tensor]) -> dict[str, Any]:
        """``distance`` to the recordings and ``probes`` of features ``[T, E]`` that a teacher has of what was made.

        The distance is Fréchet's, of frames (as in FAD), divided by the mean variance of the recordings' numbers and by
        their count: 0 is the same distribution, 1 as far as its own spread.
        """
        frames = torch.cat(list(made.values())).numpy()
        # As much of each recording as was made of it.
        wanted = torch.cat([self._features[name][: len(own)] for name, own in made.items()]).numpy()
        distance = frechet_distance(frames, wanted) / float(wanted.var(axis=0).sum())
        return {"distance": distance, "probes": self.probes(self._means, made)}

    def probes(self, known: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """How often readers that have learnt the classes of recordings name those that were asked for.

        Args:
            known: mean frames of recordings to learn from, ``[D]``, by id.
            made: frames ``[T, D]`` of the others, by id of the recording whose class was asked for.

        Returns:
            By task, see `probe_by_parts`.
        """
        found = {}
        for task in dict.fromkeys(task for task, _ in self._classes.values()):
            learnt = [name for name in known if self._classes[name][0] == task]
            judged = [name for name in made if self._classes[name][0] == task]
            rows = [known[name] for name in learnt] + [made[name].mean(dim=0) for name in judged]
            labels = [self._classes[name][1] for name in (*learnt, *judged)]
            parts = np.arange(len(learnt)), np.arange(len(learnt), len(labels))
            found[task] = probe_by_parts(torch.stack(rows).double().numpy(), labels, [parts], READERS)
        return found


def linear_loss(frames_SD: Tensor, times: Sequence[float]) -> float:
    """Loss of flow matching of the best linear reader of single frames, which knows nothing but their covariance.

    Of normal frames with variances ``λ`` along their main directions it is ``λ / (t² λ + (1 - t)²)`` at a time ``t``.
    Spaces whose numbers follow from each other are easy by that alone: what a model makes of it beyond, of moments and
    texts, is its loss over this one.

    Args:
        frames_SD: normalised frames, ``[S, D]``.
        times: of the flow, over which the mean is taken.
    """
    centred = frames_SD.double() - frames_SD.double().mean(dim=0)
    variances_D = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).clamp(min=0)
    return float(np.mean([float((variances_D / (t**2 * variances_D + (1 - t) ** 2)).mean()) for t in times]))
