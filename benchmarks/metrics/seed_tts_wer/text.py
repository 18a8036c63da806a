"""The word error rate of seed-tts-eval, exactly: what is removed from a text, how it is split, what is divided.

The rule of the published scorer (BytedanceSpeech/seed-tts-eval): punctuation is deleted with nothing in its place and
the straight apostrophe is kept; English is lower-cased and split at spaces, Mandarin at every character; there is no
number normalizer. The figure that is printed is the mean over utterances, not errors over words.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import jiwer

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# What zhon 2.1 calls hanzi.punctuation, all 82: the rule is tied to these characters, not to whatever a later release
# of a library holds.
HANZI_PUNCTUATION = (
    "＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "\u2013—\u2018\u2019\u201b“”„‟…‧﹏﹑﹔·．！？｡。"
)
APOSTROPHE = "'"
_REMOVED = str.maketrans("", "", (HANZI_PUNCTUATION + string.punctuation).replace(APOSTROPHE, ""))
# The averaging step of the published scorer reads one utterance a line, with tabs between its fields.
UNREADABLE_WHEN_AVERAGED = ("\t", "\n", "\r")
HALF = 0.5  # the published step also gives the mean over utterances that are not worse than this


@dataclass(frozen=True)
class UtteranceErrors:
    """What was heard of one utterance, against what was to be said."""

    hypothesis: str
    """As it was compared: for Mandarin in simplified characters."""
    hypothesis_normalised: str
    reference_normalised: str
    wer: float
    """0 and more; above 1 where much was inserted."""
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    num_ratio_words: int
    """What the three ratios are divided by: pieces of the reference between single spaces, empty ones included."""

    @property
    def num_errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def num_reference_words(self) -> int:
        return self.hits + self.substitutions + self.deletions


def normalise(text: str, language: Language, *, keep_apostrophes: bool = True) -> str:
    """Brings a text into the form that is compared.

    Args:
        text: any.
        language: ``en`` (words) or ``zh`` (characters).
        keep_apostrophes: False deletes straight apostrophes too, as some other toolkits do.

    Raises:
        ValueError: for another language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: seed-tts-eval has {' and '.join(LANGUAGES)}")
    text = text.translate(_REMOVED)
    if not keep_apostrophes:
        text = text.replace(APOSTROPHE, "")
    # Once, as published: of three spaces in a row two stay, and the empty piece between them counts in the ratios.
    text = text.replace("  ", " ")
    return text.lower() if language == "en" else " ".join(text)


def to_simplified(text: str) -> str:
    """Converts Chinese to the characters and words of mainland China, by zhconv's tables.

    Raises:
        ImportError: zhconv is not installed.
    """
    try:
        zhconv: Any = import_module("zhconv")
    except ImportError as error:
        raise ImportError(
            "Mandarin is scored after conversion by zhconv: run `pip install 'audiollm[bench-zh]'`"
        ) from error
    return zhconv.convert(text, "zh-cn")


def utterance_errors(
    hypothesis: str, reference: str, language: Language, *, keep_apostrophes: bool = True
) -> UtteranceErrors | None:
    """Compares what was heard with what was to be said.

    Args:
        hypothesis: as a recognizer gave it; Mandarin is converted to simplified characters here.
        reference: the text to be said, which is not converted.
        language: ``en`` or ``zh``.
        keep_apostrophes: as for `normalise`.

    Returns:
        None if the reference holds nothing to be compared: there is nothing to divide by.
    """
    hypothesis = to_simplified(hypothesis) if language == "zh" else hypothesis
    normalised_hypothesis = normalise(hypothesis, language, keep_apostrophes=keep_apostrophes)
    normalised_reference = normalise(reference, language, keep_apostrophes=keep_apostrophes)
    if not normalised_reference.strip():
        return None
    alignment = jiwer.process_words(normalised_reference, normalised_hypothesis)
    return UtteranceErrors(
        hypothesis=hypothesis,
        hypothesis_normalised=normalised_hypothesis,
        reference_normalised=normalised_reference,
        wer=alignment.wer,
        hits=alignment.hits,
        substitutions=alignment.substitutions,
        deletions=alignment.deletions,
        insertions=alignment.insertions,
        num_ratio_words=len(normalised_reference.split(" ")),
    )


def percent(rate: float) -> str:
    """A rate as the published scorer prints it: per cent, rounded to three decimals, without trailing zeros."""
    return f"{round(rate * 100, 3)}%"


def mean(values: Sequence[float]) -> float | None:
    """Plain mean; None of nothing."""
    return sum(values) / len(values) if values else None
