"""Word (or character) error rate, after Whisper's text normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

_DESCRIPTION = """Errors (substitutions + deletions + insertions) over reference words, summed over the corpus before
dividing, so that every word counts the same whichever sentence it is in."""

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of str.
    references: list of str.
    normalizer: "english" (default; lower case, no punctuation, numbers and spellings unified), "basic" (any language:
        lower case, no punctuation) or "none".
    unit: "word" (default) or "character" (for languages written without spaces; white space is ignored).

Returns:
    wer: error rate, float ≥ 0 (above 1 when much is inserted), or None when no reference holds a word: there is nothing
        to divide by.
    substitutions, deletions, insertions, hits, num_reference_words: counts over the corpus.
    num_empty_references: references without a word after normalization. Whatever is predicted for one counts as
        insertions; it adds nothing to the denominator.
"""


class WordErrorRate(evaluate.Metric):
    """Corpus word error rate; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self, predictions: list[str], references: list[str], normalizer: str = "english", unit: str = "word"
    ) -> dict[str, Any]:
        normalize = _normalizer(normalizer)
        split = _splitter(unit)
        pairs = [(split(normalize(p)), split(normalize(r))) for p, r in zip(predictions, references, strict=True)]
        spoken = [(prediction, reference) for prediction, reference in pairs if reference]
        # jiwer has no rate for an empty reference, so its insertions are counted here.
        insertions = sum(len(prediction) for prediction, reference in pairs if not reference)
        counts = dict.fromkeys(("substitutions", "deletions", "insertions", "hits"), 0)
        counts["insertions"] = insertions
        if spoken:
            alignment = jiwer.process_words(
                reference=[" ".join(reference) for _, reference in spoken],
                hypothesis=[" ".join(prediction) for prediction, _ in spoken],
            )
            for name in counts:
                counts[name] += getattr(alignment, name)
        num_words = sum(len(reference) for _, reference in spoken)
        errors = counts["substitutions"] + counts["deletions"] + counts["insertions"]
        return {
            "wer": errors / num_words if num_words else None,
            **counts,
            "num_reference_words": num_words,
            "num_empty_references": len(pairs) - len(spoken),
        }


def _normalizer(name: str) -> Callable[[str], str]:
    if name == "none":
        return str
    if name == "basic":
        return BasicTextNormalizer()
    if name == "english":
        return EnglishTextNormalizer()
    raise ValueError(f"normalizer={name!r}: use english, basic or none")


def _splitter(unit: str) -> Callable[[str], list[str]]:
    if unit == "word":
        return str.split
    if unit == "character":
        return lambda text: list("".join(text.split()))
    raise ValueError(f"unit={unit!r}: use word or character")
