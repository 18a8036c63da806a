"""Reading the letter of an option out of a reply, as the parsers of lmms-eval and MMSU do; but never guessing one."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence

# Stripped from the ends of a reply, one after the other in this order.
_OUTER_MARKS = (",", ".", "!", "?", ";", ":", "'")
_BRACKETED = {letter: f"({letter})" for letter in string.ascii_uppercase}
_ALONE = {letter: f" {letter} " for letter in string.ascii_uppercase}
# Also found at the end of a word, as in "USA ": the published parser does so, and its figures include it.
_BEFORE_BLANK = {letter: f"{letter} " for letter in string.ascii_uppercase}
_DOTTED = {letter: f"{letter}." for letter in string.ascii_uppercase}
_LONG_REPLY = 5  # words; a longer one may name an option by its text


def letter_among_four(reply: str) -> str | None:
    """The letter A to D that a reply gives, as read for MMAU; None if there is none.

    Letters count in the form ``(A)``; without any of those, as a word of its own; without those, as ``A.``.
    """
    text = _spaced(reply)
    found = _first_found(text, "ABCD", (_BRACKETED, _ALONE, _DOTTED))
    # Letters in brackets and before a full stop have the position -1 here: of several the first in the alphabet counts.
    return _last(found, lambda letter: text.rfind(f" {letter} ")) if found else None


def letter_of_option(reply: str, choices: Sequence[str]) -> str | None:
    """The letter that a reply gives, one letter an option, as read for MMAR; None if there is none.

    Letters count in the form ``(A)``; without any, as ``A`` before a blank; without those, as ``A.``; in a long reply
    without those, the text of an option stands for its letter.
    """
    text = _spaced(reply)
    letters = string.ascii_uppercase[: len(choices)]
    if bracketed := _first_found(text, letters, (_BRACKETED,)):
        return _last(bracketed, lambda letter: text.rfind(f"({letter})"))
    if bare := _first_found(text, letters, (_BEFORE_BLANK, _DOTTED)):
        # A letter that does not stand alone has the position -1 here: the published order of preference.
        return _last(bare, lambda letter: text.rfind(f" {letter} "))
    if len(text.split()) <= _LONG_REPLY:
        return None
    lowered = text.lower()
    texts = {letter: choice.lower() for letter, choice in zip(letters, choices, strict=False)}
    named = [letter for letter in letters if texts[letter] in lowered]
    return _last(named, lambda letter: lowered.rfind(texts[letter])) if named else None


def letter_at_an_end(reply: str) -> str | None:
    """The letter A to D at the start of a reply or second-last in it, as the scorer of MMSU reads; None if neither is.

    Args:
        reply: stripped of blanks and without line ends.
    """
    # The capital need not stand alone: "Both" counts as B. The published rule does so, and its figures include it.
    if reply[:1] in set("ABCD"):
        return reply[0]
    if len(reply) > 1 and reply[-2] in "ABCD":  # "(B)" and "B." end in a mark
        return reply[-2]
    return None


def _spaced(reply: str) -> str:
    for mark in _OUTER_MARKS:
        reply = reply.strip(mark)
    return f" {reply} "


def _first_found(text: str, letters: str, forms: Sequence[Mapping[str, str]]) -> list[str]:
    """The letters that occur in the first form in which any does."""
    for form in forms:
        found = [letter for letter in letters if form[letter] in text]
        if found:
            return found
    return []


def _last(letters: Sequence[str], position: Callable[[str], int]) -> str:
    """The letter that stands last; of equals the first in the alphabet."""
    return max(letters, key=position)
