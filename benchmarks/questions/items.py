"""One question of a multiple-choice benchmark of audio understanding, whichever benchmark it is from."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CustomQuestion:
    """A question about a clip of one's own, to be written in the layout of a benchmark.

    Attributes:
        id: unique in the set.
        audio: path of the recording, relative to the file of questions.
        question: as asked, without options.
        choices: the options, two to four.
        answer: the right one.
        field: what is asked about, a key of `audiollm.data.sap.question_wordings.QUESTIONS`.
        sound_type: "speech", "music", "sound" or "mix".
        language: of the speech.
        source: what the clip is from.
    """

    id: str
    audio: str
    question: str
    choices: tuple[str, ...]
    answer: str
    field: str
    sound_type: str
    language: str = ""
    source: str = ""


@dataclass(frozen=True)
class QuestionItem:
    """A question about a recording, its options and its answer.

    Attributes:
        id: as the benchmark names the question; unique in it.
        audio: absolute path of the recording, or the bytes of an audio file of any format.
        question: as asked, without options.
        choices: one entry a letter, in order; None where a letter has no option (MMSU). An empty text or the text
            "None" is an option like any other.
        answer: the text of the right option; empty where the benchmark withholds it.
        groups: what the tables are by, such as ``{"task": "music", "difficulty": "easy"}``.
    """

    id: str
    audio: str | bytes = field(repr=False)
    question: str
    choices: tuple[str | None, ...]
    answer: str
    groups: Mapping[str, str]

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters that have an option: A, B, … by position."""
        return tuple(
            letter for letter, choice in zip(string.ascii_uppercase, self.choices, strict=False) if choice is not None
        )


def without_letters(choices: Sequence[Any]) -> list[Any]:
    """Options without ``(A) ``, ``(B) ``, … before them, if all of them have it."""
    marks = [f"({chr(ord('A') + position)}) " for position in range(len(choices))]
    marked = list(zip(choices, marks, strict=True))
    if all(isinstance(choice, str) and choice.startswith(mark) for choice, mark in marked):
        return [choice[len(mark) :] for choice, mark in marked]
    return list(choices)
