"""Cosine similarity of speaker vectors, as seed-tts-eval reports it."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from audiollm.benchmarks.metrics.speaker_vectors import cosine

_DESCRIPTION = """Cosine of a speaker encoder's vectors for a made recording and for the recording whose voice it is to
have; mean and population variance over pairs. Figures of different speaker encoders cannot be compared: name the
encoder beside the figure."""

_CITATION = "Anastassiou et al., Seed-TTS: A Family of High-Quality Versatile Speech Generation Models, 2024"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of speaker vectors, floats [S] each, of the made recordings.
    references: list of as many, of the recordings whose voice they are to have.

Returns:
    speaker_similarity: mean cosine, -1 to 1, or None without pairs.
    variance: of the cosines (population variance), or None.
    scores: the cosine of every pair; 0 where a vector is zero.
    printed: mean and variance in the words of the published scorer, three decimals.
"""


class SpeakerSimilarity(evaluate.Metric):
    """Mean cosine of speaker vectors; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": vector, "references": vector}),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[float]]) -> dict[str, Any]:
        scores = [
            cosine(made, wanted, f"pair {number}")
            for number, (made, wanted) in enumerate(zip(predictions, references, strict=True))
        ]
        average = float(np.mean(scores)) if scores else None
        variance = float(np.var(scores)) if scores else None
        printed = [] if average is None or variance is None else printed_lines(average, variance)
        return {"speaker_similarity": average, "variance": variance, "scores": scores, "printed": printed}


def printed_lines(average: float, variance: float) -> list[str]:
    """The two lines of the published scorer."""
    return [f"ASV: {round(average, 3)}", f"ASV-var: {round(variance, 3)}"]
