"""Whether a recognizer looped: it wrote a piece of text again and again that nobody was to say so often."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_PERIOD = 400  # characters of the piece that is repeated: a few sentences
MIN_REPEATS = 4
MIN_CHARACTERS = 20  # that the repetition covers: "no, no, no, no" is speech
MIN_REPEATS_OF_LONG = 3  # of what covers this much, which nobody says again by chance
MIN_CHARACTERS_OF_LONG = 60
TIMES_REFERENCE = 2  # so much longer than the longest repetition that was to be said


class Repetition(NamedTuple):
    """The longest stretch of a text that is one piece over and over.

    Attributes:
        num_repeats: how often the piece stands there; 1: nothing is repeated.
        num_characters: letters and digits that the stretch covers.
    """

    num_repeats: int
    num_characters: int


def longest_repetition(text: str) -> Repetition:
    """Finds the longest stretch in which a piece of up to ``MAX_PERIOD`` characters follows itself.

    Case, blanks and punctuation do not count, so that it finds words, phrases and characters of any script alike.
    """
    characters = "".join(filter(str.isalnum, text.casefold()))
    codes = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), np.uint32)
    longest = Repetition(1, 0)
    for period in range(1, min(MAX_PERIOD, len(codes) // 2) + 1):
        # A stretch that repeats with a period equals itself, moved by the period.
        moved = _longest_run(codes[:-period] == codes[period:])
        if moved >= period and moved + period > longest.num_characters:
            longest = Repetition(moved // period + 1, moved + period)
    return longest


def _longest_run(is_equal: np.ndarray) -> int:
    """The length of the longest stretch of True."""
    ends = np.flatnonzero(~is_equal)
    return int(np.diff(ends, prepend=-1, append=len(is_equal)).max()) - 1


def is_looped(hypothesis: str, reference: str) -> bool:
    """Whether what was heard repeats itself as only a recognizer in a loop does.

    Args:
        hypothesis: as the recognizer gave it.
        reference: what was to be said, which may repeat itself, too.
    """
    heard = longest_repetition(hypothesis)
    is_short_loop = heard.num_repeats >= MIN_REPEATS and heard.num_characters >= MIN_CHARACTERS
    is_long_loop = heard.num_repeats >= MIN_REPEATS_OF_LONG and heard.num_characters >= MIN_CHARACTERS_OF_LONG
    if not (is_short_loop or is_long_loop):
        return False
    return heard.num_characters > TIMES_REFERENCE * longest_repetition(reference).num_characters
