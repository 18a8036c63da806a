"""Fréchet audio distance (Kilgour et al., 2019, arXiv:1812.08466) with any embedder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from audiollm.benchmarks.metrics.distances import frechet_distance
from audiollm.benchmarks.metrics.embedders import Embedder
from audiollm.benchmarks.metrics.waveform_pairs import checked_waveform

_DESCRIPTION = """Fréchet distance of an embedder's vectors of made recordings to those of real ones, each set taken for
a normal distribution. 0 is equal. Figures of different embedders, or of sets of different sizes, cannot be compared:
name both beside the figure."""

_CITATION = "Kilgour et al., Fréchet Audio Distance: A Reference-Free Metric for Evaluating Music Enhancement, 2019"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of made waveforms, floats in [-1, 1], each [N].
    references: list of real ones, of any number.
    embedder: from a waveform (float32 tensor [N]) and its sample rate to vectors [F, D];
        audiollm.benchmarks.metrics.embedders has some.
    prediction_sample_rate: Hz.
    reference_sample_rate: Hz.

Returns:
    fad: float ≥ 0.
    num_vectors, num_reference_vectors: how many it was computed of; with fewer than D it says little.
"""


class FrechetAudioDistance(evaluate.Metric):
    """Distance of two sets of recordings; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        waveform = datasets.Sequence(datasets.Value("float32"))
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": waveform}),
        )
        info.format = "numpy"  # as in `waveform_metric_info`
        return info

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> Any:
        """As of any metric; references need not be as many as predictions, which ``evaluate`` wants of columns."""
        return super().compute(predictions=predictions, real_waveforms=references, **options)

    def _compute(
        self,
        predictions: Any,
        real_waveforms: Sequence[Any] | None,
        embedder: Embedder,
        prediction_sample_rate: int,
        reference_sample_rate: int,
    ) -> dict[str, Any]:
        made = _embedded(predictions, "prediction", embedder, prediction_sample_rate)
        wanted = _embedded(
            [] if real_waveforms is None else real_waveforms, "reference", embedder, reference_sample_rate
        )
        return {
            "fad": frechet_distance(made, wanted),
            "num_vectors": len(made),
            "num_reference_vectors": len(wanted),
        }


def _embedded(waveforms: Sequence[Any], name: str, embedder: Embedder, sample_rate: int) -> np.ndarray:
    """All vectors of a set, ``[F, D]``."""
    if len(waveforms) == 0:
        raise ValueError(f"there are no {name}s to compare")
    rows = []
    for index, waveform in enumerate(waveforms):
        vectors = embedder(checked_waveform(waveform, f"{name} {index}"), sample_rate)
        if vectors.dim() != 2:
            raise ValueError(f"the embedder gives {list(vectors.shape)} for {name} {index}: it must give [F, D]")
        rows.append(vectors.detach().double().cpu().numpy())
    return np.concatenate(rows)
