"""A long text in parts that are spoken one after the other: no answer is then longer than a model is used to."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ENDS = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n\s*")
_PAUSES = re.compile(r"(?<=[,;:–—])\s+|(?<=[，；：、])")
_GAPS = re.compile(r"\s+")


def parts_of(text: str, longest: int) -> list[str]:
    """Cuts a text at the ends of sentences; one that is too long at its pauses, at blanks, or anywhere at last.

    Args:
        text: what is to be spoken.
        longest: most characters of a part. Sentences that have room together stay together.

    Returns:
        The parts; joined by blanks they are the text, but for its white space. None is empty.

    Raises:
        ValueError: if ``longest`` is below 1.
    """
    if longest < 1:
        raise ValueError(f"longest={longest}: use 1 or more")
    return _packed(_short_pieces(text, longest, [_ENDS, _PAUSES, _GAPS]), longest)


def _short_pieces(text: str, longest: int, cuts: list[re.Pattern[str]]) -> Iterator[str]:
    text = text.strip()
    if len(text) <= longest:
        if text:
            yield text
        return
    if not cuts:
        yield from (text[at : at + longest] for at in range(0, len(text), longest))
        return
    pieces = _split(cuts[0], text)
    if len(pieces) > 1 and cuts[0] is not _ENDS:
        pieces = _packed(iter(pieces), longest)
    for piece in pieces:
        yield from _short_pieces(piece, longest, cuts[1:])


def _split(cut: re.Pattern[str], text: str) -> list[str]:
    """The pieces between cuts; marks that close a sentence stay with it."""
    pieces, start = [], 0
    for found in cut.finditer(text):
        closing = len(found[0].rstrip()) if found[0].strip() else 0
        pieces.append(text[start : found.start() + closing].strip())
        start = found.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece]


def _packed(pieces: Iterator[str], longest: int) -> list[str]:
    packed: list[str] = []
    for piece in pieces:
        if packed and len(packed[-1]) + 1 + len(piece) <= longest:
            packed[-1] = f"{packed[-1]} {piece}"
        else:
            packed.append(piece)
    return packed
