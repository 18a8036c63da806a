"""The word (Mandarin: character) error rate of seed-tts-eval."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair, score_pairs
from audiollm.benchmarks.metrics.seed_tts_wer.text import Language

_DESCRIPTION = """Mean over utterances of each one's word error rate (English) or character error rate (Mandarin), by
the published rule of seed-tts-eval: Chinese and ASCII punctuation but the straight apostrophe is deleted with nothing
in its place, English is lower-cased, a Mandarin hypothesis is converted to simplified characters; numbers stay as they
are. Errors over words, another number, is given beside it."""

_CITATION = "Anastassiou et al., Seed-TTS: A Family of High-Quality Versatile Speech Generation Models, 2024"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of str, as a recognizer gave them.
    references: list of str, the texts to be said.
    language: "en" (default) or "zh" (needs zhconv).

Returns:
    seed_tts_wer: float ≥ 0 (above 1 where much was inserted), or None when no reference holds a word.
    scores: the rate of every utterance; None for one whose reference holds nothing to be compared.
    num_unscored: how many those are.
    corpus_wer: errors over reference words.
"""


class SeedTTSWordErrorRate(evaluate.Metric):
    """Mean word error rate of utterances; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str], language: Language = "en") -> dict[str, Any]:
        pairs = [
            TextPair(str(number), hypothesis, reference)
            for number, (hypothesis, reference) in enumerate(zip(predictions, references, strict=True))
        ]
        result = score_pairs(pairs, language)
        return {
            "seed_tts_wer": result["wer_of_all"],
            "scores": [item["wer"] for item in result["items"]],
            "num_unscored": result["num_empty_references"],
            "corpus_wer": result["corpus_level"]["wer"],
        }
