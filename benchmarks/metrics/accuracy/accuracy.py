"""Exact-match accuracy of text answers."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
from whisper_normalizer.basic import BasicTextNormalizer

_DESCRIPTION = "Share of predictions that equal their reference."

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of str.
    references: list of str.
    normalizer: "basic" (default: lower case, no punctuation, white space collapsed) or "none".

Returns:
    accuracy: float in [0, 1], or None when there is nothing to compare.
    num_correct, num_items: counts. An empty prediction is right only for an empty reference.
"""


class ExactMatchAccuracy(evaluate.Metric):
    """Exact-match accuracy; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str], normalizer: str = "basic") -> dict[str, Any]:
        if normalizer not in ("basic", "none"):
            raise ValueError(f"normalizer={normalizer!r}: use basic or none")
        clean = BasicTextNormalizer() if normalizer == "basic" else str
        num_correct = sum(
            clean(prediction).split() == clean(reference).split()
            for prediction, reference in zip(predictions, references, strict=True)
        )
        return {
            "accuracy": num_correct / len(references) if references else None,
            "num_correct": num_correct,
            "num_items": len(references),
        }
