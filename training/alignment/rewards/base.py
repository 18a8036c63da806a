"""What every reward gets and gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from audiollm.chat.segments import AudioSegment, TextSegment
from audiollm.data.conversation.types import Conversation


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer that was drawn.

    Attributes:
        conversation: the record whose last turn the model answered in the assistant's place.
        token_ids: of the answer, the end of the turn included.
        segments: its text and audio, in order.
        num_reference_tokens: tokens of the record's own answer.
        is_cut: whether the limit ended it and not the model.
    """

    conversation: Conversation
    token_ids: Sequence[int]
    segments: Sequence[TextSegment | AudioSegment]
    num_reference_tokens: int
    is_cut: bool

    @cached_property
    def text(self) -> str:
        """What is written in it."""
        return "".join(segment.text for segment in self.segments if isinstance(segment, TextSegment))

    @property
    def audio(self) -> list[AudioSegment]:
        """What is spoken in it; a segment may be broken, see `AudioSegment.problems`."""
        return [segment for segment in self.segments if isinstance(segment, AudioSegment)]

    @cached_property
    def spoken_codes(self) -> list[Tensor] | None:
        """The codes of its segments, int64 ``[T]`` each; None if nothing is spoken, or a segment is broken."""
        if not self.audio or not all(segment.well_formed for segment in self.audio):
            return None
        return [segment.codes for segment in self.audio]


class Reward(Protocol):
    """Says what answers are worth: more is better, best between 0 and 1, so that weights compare."""

    def __call__(self, answers: Sequence[Answer]) -> Sequence[float | None]:
        """One number an answer; None where this reward says nothing about its record."""


def checked_worth(name: str, answers: Sequence[Answer], worth: Sequence[float | None]) -> list[float | None]:
    """What a reward says of answers, if it is what a reward may say.

    trl takes NaN for "says nothing", so that a reward that breaks would train on without a word.

    Args:
        name: of the reward.
        answers: what it has been asked about.
        worth: what it says.

    Raises:
        ValueError: naming the reward, and the record: it is no number, or not one for each answer.
    """
    if len(worth) != len(answers):
        raise ValueError(f"reward {name} gave {len(worth)} numbers for {len(answers)} answers")
    for answer, value in zip(answers, worth, strict=True):
        if value is not None and not math.isfinite(value):
            asked = answer.conversation.where or answer.conversation.id
            raise ValueError(
                f"reward {name} is {value} for an answer to {asked}: it must give a number, or None where it says "
                "nothing"
            )
    return list(worth)
