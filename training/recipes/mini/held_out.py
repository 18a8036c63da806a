"""The sentences that mini is asked to speak and to transcribe, and the filter that keeps them out of its training.

Numbers in them are such as recognizers write in words: the scorer's rule takes "250" for another word than what was
said.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from audiollm.benchmarks.metrics.seed_tts_wer.text import normalise

NGRAM_WORDS = 4


@cache
def held_out_sentences() -> tuple[str, ...]:
    """The sentences, in a fixed order: a few of them are as mixed as all."""
    text = files(__package__).joinpath("held_out_sentences.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def is_held_out(text: str) -> bool:
    """Whether a text shares a sentence, or `NGRAM_WORDS` words in a row, with `held_out_sentences`; as the scorer
    normalises both, and besides with hyphens between words taken for spaces."""
    whole, ngrams = _held_out()
    spellings = {words_of(text), words_of(text.replace("-", " "))}
    return any(words in whole or not ngrams.isdisjoint(ngrams_of(words)) for words in spellings)


def words_of(text: str) -> tuple[str, ...]:
    """Words as they are scored."""
    return tuple(normalise(text, "en").split())


def ngrams_of(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    """All `NGRAM_WORDS` words in a row."""
    return {words[start : start + NGRAM_WORDS] for start in range(len(words) - NGRAM_WORDS + 1)}


@cache
def _held_out() -> tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]:
    whole = frozenset(map(words_of, held_out_sentences()))
    return whole, frozenset().union(*map(ngrams_of, whole))
