"""AudioChatModel, a model under test: it hears a recording, reads a question and answers in text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from audiollm.data.audio.channels import Mono, checked_mono
from audiollm.data.chat.base import ChatError


@dataclass(frozen=True)
class WorkedExample:
    """A question about another recording with its answer, as an earlier turn of the chat.

    Attributes:
        audio: as of a request.
        text: the whole question.
        answer: as the model should have answered.
    """

    audio: str | bytes = field(repr=False)
    text: str
    answer: str


@dataclass(frozen=True)
class ChatRequest:
    """A question about a recording.

    Attributes:
        audio: path of a recording, or the bytes of an audio file; heard before the text is read.
        text: the whole question, options included.
        examples: turns before it; only for models that take them.
    """

    audio: str | bytes = field(repr=False)
    text: str
    examples: tuple[WorkedExample, ...] = ()


@dataclass(frozen=True)
class ChatAnswer:
    """What a model answered.

    Attributes:
        text: as the model wrote it.
        is_cut: whether it ended because ``max_new_tokens`` were reached.
        is_recording_cut: whether the model heard only the beginning of the recording.
    """

    text: str
    is_cut: bool = False
    is_recording_cut: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How answers are generated.

    Attributes:
        max_new_tokens: the longest answer; give models that think aloud more.
        temperature: 0 for the likeliest answer.
        seed: of what is drawn.
        mono: which channel of a recording is heard, "first" or the "mean" of all. None: a model of ours hears the first
            one, one of transformers their mean, and an endpoint is sent plain WAV files with all channels.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    mono: Mono | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: use 1 or more")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: use 0 or more")
        if self.mono is not None:
            checked_mono(self.mono)

    def to_dict(self) -> dict[str, Any]:
        """What an answer depends on: the seed only where something is drawn, ``mono`` only where it was chosen."""
        settings = dataclasses.asdict(self)
        if not self.temperature:
            del settings["seed"]
        if self.mono is None:
            del settings["mono"]
        return settings


class AudioChatModel(Protocol):
    """A model under test.

    Attributes:
        settings: how answers are generated; may be replaced between calls.
    """

    settings: AnswerSettings

    @property
    def concurrency(self) -> int:
        """How many threads may call `answer` at once; above 1 each call gets one request."""
        ...

    @property
    def decoding(self) -> Mapping[str, Any]:
        """What its answers depend on beside the weights: settings and number format."""
        ...

    def describe(self) -> Mapping[str, str | None]:
        """Which model it is: ``name``, ``revision`` and ``tokenizer_revision`` (None: not known)."""
        ...

    def answer(self, requests: Sequence[ChatRequest]) -> Sequence[ChatAnswer | ChatError]:
        """Answers requests.

        Returns:
            One entry each: the answer, or an error in its place.

        Raises:
            ChatError: if no request can succeed; other errors concern these requests alone.
        """
        ...
