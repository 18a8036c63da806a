"""How well made recordings fit their texts, by the vectors of a model such as CLAP."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from audiollm.benchmarks.metrics.embedders import TextScorer
from audiollm.benchmarks.metrics.speaker_vectors import cosine
from audiollm.benchmarks.metrics.waveform_pairs import checked_waveform, mean_score

_DESCRIPTION = """Cosine of the vectors that a model of sounds and texts, such as CLAP, gives for a made recording and
for the text that it was made of; the mean over pairs. Figures of different models cannot be compared: name the model
beside the figure."""

_CITATION = "Wu et al., Large-scale Contrastive Language-Audio Pretraining, 2023"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of made waveforms, floats in [-1, 1], each [N].
    references: list of as many texts.
    scorer: has embed_audio(waveform [N], sample_rate) and embed_text(text), which give vectors [D];
        audiollm.benchmarks.metrics.embedders.ClapScorer is one.
    prediction_sample_rate: Hz.

Returns:
    clap_score: mean cosine, -1 to 1, or None without pairs.
    scores: of every pair.
    num_unscored: 0.
"""


class ClapScore(evaluate.Metric):
    """Mean cosine of sound and text; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        waveform = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": waveform, "references": datasets.Value("string")}),
        )

    def _compute(
        self, predictions: Any, references: list[str], scorer: TextScorer, prediction_sample_rate: int
    ) -> dict[str, Any]:
        scores: list[float | None] = []
        for index, (made, text) in enumerate(zip(predictions, references, strict=True)):
            heard = scorer.embed_audio(checked_waveform(made, f"prediction {index}"), prediction_sample_rate)
            meant = scorer.embed_text(text)
            scores.append(cosine(heard.detach().cpu().numpy(), meant.detach().cpu().numpy(), f"pair {index}"))
        return mean_score("clap_score", scores)
