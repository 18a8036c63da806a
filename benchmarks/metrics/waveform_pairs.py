"""Pairs of waveforms for the metrics of sound: brought side by side, and averaged over clips.

Alignment is by the clock: both start together, the longer one is cut to the shorter, and both are resampled to the
metric's rate. No shift is searched for: a reconstruction has the timing of its original, or that is a defect to be
seen. A difference in length beyond ``max_length_difference_seconds`` is refused, because cutting would hide it.
"""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from audiollm.data.audio.waveforms import resample

MAX_LENGTH_DIFFERENCE_SECONDS = 0.25


def waveform_metric_info(description: str, citation: str, inputs_description: str) -> evaluate.MetricInfo:
    """What ``evaluate`` is told of a metric whose predictions and references are lists of waveforms."""
    waveform = datasets.Sequence(datasets.Value("float32"))
    info = evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=inputs_description,
        features=datasets.Features({"predictions": waveform, "references": waveform}),
    )
    # Arrays, since a list of Python numbers takes ten times the memory. Given to the constructor, the format is refused
    # for sequences, though it works for them.
    info.format = "numpy"
    return info


def waveform_pairs(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    prediction_sample_rate: int,
    reference_sample_rate: int,
    sample_rate: int,
    max_length_difference_seconds: float = MAX_LENGTH_DIFFERENCE_SECONDS,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields ``(prediction, reference)`` of each clip, float32 ``[N]`` of one length at ``sample_rate``.

    Args:
        predictions: floats in [-1, 1], each ``[n]``.
        references: as many.
        prediction_sample_rate: Hz, of all predictions.
        reference_sample_rate: Hz, of all references.
        sample_rate: Hz, at which the metric compares.
        max_length_difference_seconds: of the two recordings of a clip.

    Raises:
        ValueError: a waveform is empty, not one channel, not finite, or the lengths differ by more than allowed.
    """
    for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        given = checked_waveform(prediction, f"prediction {index}")
        wanted = checked_waveform(reference, f"reference {index}")
        difference = len(given) / prediction_sample_rate - len(wanted) / reference_sample_rate
        if abs(difference) > max_length_difference_seconds:
            raise ValueError(
                f"prediction {index} is {abs(difference):.3f} s {'longer' if difference > 0 else 'shorter'} than its "
                f"reference; cut or pad one of them, or raise max_length_difference_seconds "
                f"({max_length_difference_seconds})"
            )
        # Cut before resampling, whose filter would let what is cut ring into what stays.
        duration_seconds = min(len(given) / prediction_sample_rate, len(wanted) / reference_sample_rate)
        given = resample(given[: round(duration_seconds * prediction_sample_rate)], prediction_sample_rate, sample_rate)
        wanted = resample(wanted[: round(duration_seconds * reference_sample_rate)], reference_sample_rate, sample_rate)
        length = min(len(given), len(wanted))
        yield given[:length], wanted[:length]


def mean_score(name: str, scores: Sequence[float | None]) -> dict[str, Any]:
    """The result of a metric: the mean over the clips that have a score (None if none has), and every clip's own."""
    scored = [score for score in scores if score is not None]
    return {
        name: sum(scored) / len(scored) if scored else None,
        "scores": list(scores),
        "num_unscored": len(scores) - len(scored),
    }


def bench_library(name: str) -> ModuleType:
    """Imports a library that only scoring needs.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"this metric needs {name}: run `pip install 'audiollm[bench]'`") from error


def checked_waveform(waveform: Any, name: str) -> Tensor:
    """A waveform as float32 ``[N]``.

    Raises:
        ValueError: it is empty, not one channel, or not finite.
    """
    tensor = torch.from_numpy(np.array(waveform, dtype=np.float32))
    if tensor.ndim != 1:
        raise ValueError(f"{name} has shape {list(tensor.shape)}; give one channel, [N]")
    if len(tensor) == 0:
        raise ValueError(f"{name} is empty (0 samples)")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinite samples")
    return tensor
