"""What a chat consists of: questions with recordings, and answers that come piece by piece as text and sound."""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from audiollm.data.audio.reading import probe_audio


class AnswerError(RuntimeError):
    """An answer could not be had; the message is one line for whoever asked."""


@dataclass(frozen=True)
class Recording:
    """A recording that goes with a question.

    Attributes:
        name: how it is called; a path, where ``is_file``.
        content: bytes of its file.
        is_file: whether it lies on the disk; what was recorded in the chat does not.
    """

    name: str
    content: bytes
    is_file: bool = True

    @classmethod
    def of_file(cls, path: str) -> Recording:
        """Reads a file.

        Raises:
            OSError: it cannot be read.
            AudioError: it is no recording.
        """
        probe_audio(path)
        return cls(path, Path(path).read_bytes())


@dataclass(frozen=True, eq=False)
class Sound:
    """Sound as it comes: float32 ``[N]``, and its rate in Hz."""

    waveform: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class End:
    """How an answer ended.

    Attributes:
        reason: "stop" if it is whole, "length" if a limit cut it, "lost" if it broke off, "cancelled" by the user.
    """

    reason: Literal["stop", "length", "lost", "cancelled"]


Piece = str | Sound | End
Pieces = Generator[Piece, None, None]


@dataclass(eq=False)
class Turn:
    """A question and its answer, as far as it has come.

    Attributes:
        question: text, which may be empty beside recordings.
        recordings: that go with it.
        answer: text of it.
        sounds: of it.
        end: how it ended; None while it comes.
        is_aside: a text was to be spoken; it is no part of what the model is reminded of.
    """

    question: str
    recordings: list[Recording] = field(default_factory=list)
    answer: str = ""
    sounds: list[Sound] = field(default_factory=list)
    end: End | None = None
    is_aside: bool = False

    def take(self, piece: Piece) -> None:
        """Takes the next piece of the answer."""
        if isinstance(piece, str):
            self.answer += piece
        elif isinstance(piece, Sound):
            self.sounds.append(piece)
        else:
            self.end = piece

    @property
    def sound(self) -> Sound | None:
        """All of the sound; None if there is none."""
        if not self.sounds:
            return None
        return Sound(np.concatenate([one.waveform for one in self.sounds]), self.sounds[0].sample_rate)


def answered(turns: Sequence[Turn]) -> list[Turn]:
    """Those that a model is reminded of: what it never answered would only confuse it."""
    return [turn for turn in turns if turn.answer.strip() and not turn.is_aside]


class Partner(Protocol):
    """Whom one chats with: a model in this process, or one behind a URL."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def voices(self) -> Sequence[str]:
        """Names of the voices that it has; empty if they are not known, or it has none."""
        ...

    def answer(self, turns: Sequence[Turn], *, is_spoken: bool, voice: str | None) -> Pieces:
        """Answers the last of the turns.

        Args:
            turns: the chat.
            is_spoken: whether there is sound beside the text.
            voice: whose, by name or in words; None: its own.

        Raises:
            AnswerError: there will be no answer; also while pieces come.
            ValueError: likewise, for something that was given.
        """
        ...

    def say(self, text: str, *, voice: str | None) -> Pieces:
        """Speaks a text; arguments and errors as for `answer`."""
        ...
