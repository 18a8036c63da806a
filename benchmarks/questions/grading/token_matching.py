"""The rule by which MMAU and MMAR grade a reply: sets of words.

A text is the set of its words (runs of Unicode word characters, lower-cased). A reply is right if it has words, all of
the answer's among them and none that tells a wrong option from the answer. An option with the answer's set of words is
not a wrong one. Nothing else is done to a text: no stemming, no folding of accents or widths, no cutting of letters.

Facts: the scorers of the MMAU (Sakshi et al., 2024, arXiv:2410.19168) and MMAR (Ma et al., 2025, arXiv:2505.13032)
repositories.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+")

Words = frozenset[str]


def words_of(text: str) -> Words:
    """The set of lower-cased words of a text. Lower-casing comes first: it splits a dotted capital İ in two."""
    return frozenset(_WORD.findall(text.lower()))


@functools.lru_cache(maxsize=1 << 16)
def option_words(text: str) -> Words:
    """``words_of`` for texts that come again and again."""
    return words_of(text)


def names_option(reply: Words, option: Words, options: Iterable[Words]) -> bool:
    """Whether a reply counts as naming an option and no other.

    Args:
        reply: words of the reply.
        option: words of the option; it need not be one of ``options``.
        options: words of every option.
    """
    if not reply or not option <= reply:
        return False
    # An option with the same words takes part too: nothing is left of it.
    return all(reply.isdisjoint(other - option) for other in options)


def is_right(reply: str, answer: str, choices: Iterable[str]) -> bool:
    """Grades a reply by the published rule."""
    return names_option(words_of(reply), option_words(answer), [option_words(choice) for choice in choices])
