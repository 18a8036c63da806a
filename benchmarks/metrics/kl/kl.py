"""Divergence of what a classifier hears in made recordings from what it hears in real ones."""

from __future__ import annotations

from typing import Any

import evaluate

from audiollm.benchmarks.metrics.distances import kl_divergence
from audiollm.benchmarks.metrics.embedders import Classifier
from audiollm.benchmarks.metrics.waveform_pairs import checked_waveform, mean_score, waveform_metric_info

_DESCRIPTION = """Kullback-Leibler divergence of a classifier's probabilities for a made recording from those for the
real one of the same text, in nats; the mean over pairs. 0 is equal. Figures of different classifiers cannot be
compared: name the classifier beside the figure."""

_CITATION = "Kreuk et al., AudioGen: Textually Guided Audio Generation, 2022"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of made waveforms, floats in [-1, 1], each [N].
    references: list of as many real ones; lengths may differ.
    classifier: from a waveform (float32 tensor [N]) and its sample rate to probabilities [C];
        audiollm.benchmarks.metrics.embedders.LabelClassifier is one.
    prediction_sample_rate: Hz.
    reference_sample_rate: Hz.

Returns:
    kl: float ≥ 0, the mean over pairs, or None without pairs.
    scores: of every pair.
    num_unscored: 0.
"""


class LabelDivergence(evaluate.Metric):
    """Mean divergence over pairs; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        return waveform_metric_info(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        classifier: Classifier,
        prediction_sample_rate: int,
        reference_sample_rate: int,
    ) -> dict[str, Any]:
        scores: list[float | None] = []
        for index, (made, wanted) in enumerate(zip(predictions, references, strict=True)):
            heard = classifier(checked_waveform(made, f"prediction {index}"), prediction_sample_rate)
            real = classifier(checked_waveform(wanted, f"reference {index}"), reference_sample_rate)
            scores.append(kl_divergence(heard.detach().cpu().numpy(), real.detach().cpu().numpy(), f"pair {index}"))
        return mean_score("kl", scores)
