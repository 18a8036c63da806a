"""Examples of use from WordNet 3.0: tens of thousands of natural English sentences and short phrases.

A dictionary shows with each what one of its words means, so that nearly every common word of English, and many a rare
one, stands in some. WordNet's licence lets anyone use, change and pass on what is in it, and asks that its notice is
kept. It comes as a Debian package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from audiollm.data.packages import Package

PACKAGE = Package("deb", "wordnet-base", "1:3.0-37", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752")
ATTRIBUTION = "example of use from WordNet 3.0, © 2006 Princeton University"
MIN_WORDS, MAX_WORDS = 2, 16

# A file for each part of speech; their examples are of different build, so all are wanted.
_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
# Usage marks of an entry, by the offset of what it is marked as: terms of disparagement, ethnic slurs, obscenities.
_OFFENSIVE = frozenset({"06717170", "06718862", "07124340"})
# Words and topics that nobody wants to hear a demonstration read aloud.
_UNWANTED = re.compile(
    r"\b(?:sex\w*|rap(?:e|ed|es|ing|ists?)|whor\w*|prostitut\w*|brothel\w*|nud\w*|naked\w*|nazi\w*|hitler\w*|"
    r"suicid\w*|murder\w*|tortur\w*|massacr\w*|lynch\w*|slut\w*|bitch\w*|bastard\w*|damn\w*|shit\w*|fuck\w*|arse|ass|"
    r"negro\w*|jews?|jewish|heroin|cocaine|incest\w*|corpses?|penis\w*|vagina\w*|genital\w*)\b",
    re.IGNORECASE,
)
_POINTER = re.compile(r";u (\d{8})")
_EXAMPLE = re.compile(r'"([^"]+)"([^";]*)')
# Digits, brackets and quoted words are read in ways that the text does not tell.
_PLAIN = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*(?:,? [A-Za-z]+(?:['-][A-Za-z]+)*)*[.?!]?")
_QUESTION = re.compile(
    r"(?:(?:do|does|did|is|are|was|were|am|can|could|will|would|shall|should|may|has|have) "
    r"(?:you|he|she|I|they|we|it|there|this|that|the|your|my)|(?:what|where|why|how|who) (?:do|does|did|is|are|can)) ",
    re.IGNORECASE,
)


def wordnet_examples() -> list[str]:
    """The usable examples, in a fixed order, no two alike.

    Returns:
        Texts of `MIN_WORDS` to `MAX_WORDS` words, with a capital and a mark at the end and no digits.

    Raises:
        PackageError: if the package cannot be fetched.
    """
    folder = PACKAGE.extract("usr/share/wordnet/data.*") / "usr" / "share" / "wordnet"
    return list(dict.fromkeys(text for name in _FILES for text in examples_in(_lines(folder / name))))


def examples_in(lines: Iterable[str]) -> Iterator[str]:
    """The usable examples of a data file of WordNet, see `wordnet_examples`.

    Args:
        lines: one entry each: numbers, words and pointers, a bar, the definition with its examples in quotation marks.
    """
    for line in lines:
        entry, _, gloss = line.partition(" | ")
        if _OFFENSIVE.isdisjoint(_POINTER.findall(entry)):
            for example, author in _EXAMPLE.findall(gloss):
                if not author.strip() and (text := _sentence(example)):
                    yield text


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="latin-1").splitlines()


def _sentence(example: str) -> str | None:
    """The example as a sentence; None if it is not plain, too short or too long."""
    text = " ".join(example.split())
    if not _PLAIN.fullmatch(text) or not MIN_WORDS <= len(text.split()) <= MAX_WORDS or _UNWANTED.search(text):
        return None
    if text[-1] not in ".?!":
        text += "?" if _QUESTION.match(text) else "."
    return text[0].upper() + text[1:]
