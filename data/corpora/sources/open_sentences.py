"""English sentences of open vocabulary: a dictionary's examples of use, and a grammar with long word lists.

The examples give words as people use them, the grammar numbers, names, dates, prices, addresses and spelt letters, of
which examples have few. Lengths are balanced: of what is drawn, no number of words is much more common than others.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from audiollm.data.sampling import draw, draw_share

from .open_grammar import ALTERNATIVES, SENTENCES
from .sentences import filled, finished
from .wordnet import MAX_WORDS, MIN_WORDS, wordnet_examples

SentenceSource = Literal["example", "grammar"]
EXAMPLE_SHARE = 0.6
"""Of the sentences, as far as there are so many examples."""
# Of the examples, by number of words from the first of these to the next: of all that there are, half have two to five.
EXAMPLE_LENGTHS = {2: 0.1, 3: 0.15, 5: 0.25, 7: 0.25, 9: 0.15, 11: 0.1}

_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeio]|u(?!s|ni)|hono|honest|hour)\w)")


@dataclass(frozen=True)
class OpenSentence:
    """A sentence and where it is from."""

    text: str
    source: SentenceSource


def open_sentences(
    count: int,
    seed: int = 0,
    *,
    examples: Sequence[str] | None = None,
    leave_out: Callable[[str], bool] | None = None,
) -> list[OpenSentence]:
    """Draws sentences, no two of them alike.

    Args:
        count: how many; the first ones do not depend on it.
        seed: another seed, other sentences.
        examples: a dictionary's; None: those of `wordnet_examples`, which fetches a package; empty: grammar alone.
        leave_out: tells texts that must not be drawn, such as those that a model is tested with.

    Returns:
        Sentences of 2 to 16 words, with a capital and a mark at the end, numbers in words.

    Raises:
        ValueError: if the count is negative, or so high that there are no more sentences.
        PackageError: if the package of the examples cannot be fetched.
    """
    if count < 0:
        raise ValueError(f"count={count}: use 0 or more sentences")
    by_length = _by_length(wordnet_examples() if examples is None else examples)
    found: dict[str, SentenceSource] = {}
    for number in range(20 * count + 100):
        if len(found) == count:
            break
        sentence = _sentence(f"{seed} {number}", by_length)
        is_fitting = MIN_WORDS <= len(sentence.text.split()) <= MAX_WORDS
        if is_fitting and (leave_out is None or not leave_out(sentence.text)):
            found.setdefault(sentence.text, sentence.source)
    if len(found) < count:
        raise ValueError(f"count={count}: there are only {len(found)} different sentences; ask for fewer")
    return [OpenSentence(text, source) for text, source in found.items()]


def _sentence(key: str, by_length: Sequence[tuple[float, Sequence[str]]]) -> OpenSentence:
    if by_length and draw_share("open sentence", key) < EXAMPLE_SHARE:
        return OpenSentence(_example(key, by_length), "example")
    family = SENTENCES[tuple(SENTENCES)[draw("family", key, len(SENTENCES))]]
    text = finished(filled(family[draw("template", key, len(family))], key, ALTERNATIVES))
    return OpenSentence(_ARTICLE.sub(r"\1n ", text), "grammar")


def _example(key: str, by_length: Sequence[tuple[float, Sequence[str]]]) -> str:
    shares = list(accumulate(share for share, _ in by_length))
    _, texts = by_length[bisect(shares, draw_share("length", key) * shares[-1])]
    return texts[draw("example", key, len(texts))]


def _by_length(examples: Sequence[str]) -> list[tuple[float, list[str]]]:
    """Examples of similar length, each group with its share; groups without any have none."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for text in examples:
        starts = [start for start in EXAMPLE_LENGTHS if start <= len(text.split())]
        groups[max(starts, default=min(EXAMPLE_LENGTHS))].append(text)
    return [(EXAMPLE_LENGTHS[start], groups[start]) for start in sorted(groups)]
