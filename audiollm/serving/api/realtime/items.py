"""What was said: texts, recordings, and answers in text and codes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from audiollm.data.conversation.types import AudioPart, Message, TextPart
from audiollm.serving.answering.listening import Listener
from audiollm.serving.sound.formats import RESPONSE_RATE
from audiollm.vocabulary import AudioVocabulary

from .buffer import SAMPLE_BYTES, waveform_of

Role = Literal["user", "assistant", "system"]
Status = Literal["completed", "incomplete", "in_progress"]


class Content(Protocol):
    """A part of an item."""

    def shown(self, *, has_audio: bool) -> dict[str, Any]:
        """As clients read it; with its recording, if that is kept."""

    async def said(self) -> Sequence[TextPart | AudioPart]:
        """As the model reads it."""


@dataclass(frozen=True)
class Written:
    """A text, of a client."""

    type: str
    text: str

    def shown(self, *, has_audio: bool) -> dict[str, Any]:
        """As `Content.shown`."""
        return {"type": self.type, "text": self.text}

    async def said(self) -> Sequence[TextPart | AudioPart]:
        """As `Content.said`."""
        return [TextPart(self.text)]


class Heard:
    """A recording of a client; it is encoded at once, so that an answer waits for less.

    Args:
        pcm: its samples.
        listener: encodes it.
        transcript: what is said in it, if that is known.
    """

    def __init__(self, pcm: bytes, listener: Listener, transcript: str | None = None) -> None:
        self.pcm: bytes | None = pcm
        self.seconds = len(pcm) / SAMPLE_BYTES / RESPONSE_RATE
        self.transcript = transcript
        part = AudioPart(array=waveform_of(pcm), sampling_rate=RESPONSE_RATE, where="input_audio")
        self._codes = asyncio.ensure_future(listener.codes([part]))
        self._codes.add_done_callback(_looked_at)

    def shown(self, *, has_audio: bool) -> dict[str, Any]:
        """As `Content.shown`."""
        shown: dict[str, Any] = {"type": "input_audio", "transcript": self.transcript}
        if has_audio and self.pcm is not None:
            shown["audio"] = base64.b64encode(self.pcm).decode()
        return shown

    async def said(self) -> Sequence[TextPart | AudioPart]:
        """As `Content.said`; errors as for `Listener.codes`."""
        [codes] = await asyncio.shield(self._codes)  # a response that is cancelled leaves the codes to the next one
        return [AudioPart(codes=codes, where="input_audio")]

    def forget(self) -> None:
        """Lets go of it."""
        self.pcm = None
        self._codes.cancel()


def _looked_at(codes: asyncio.Future[Any]) -> None:
    """An error is told where the codes are wanted; until then nobody needs to hear of it."""
    if not codes.cancelled():
        codes.exception()


class Answered:
    """What the model said, in the order in which it came.

    Args:
        speaks: it is sound, and its transcript.
        vocabulary: of its codes.
        frames_per_second: of what is heard: the tokenizer's rate, times the speed.
        writes_before_speaking: it says each word as soon as it is written, so that one knows which were heard.

    Attributes:
        num_samples: of its sound that went to the client.
    """

    def __init__(
        self, *, speaks: bool, vocabulary: AudioVocabulary, frames_per_second: float, writes_before_speaking: bool
    ) -> None:
        self.speaks, self.num_samples, self._vocabulary = speaks, 0, vocabulary
        self._frames_per_second, self._writes_before_speaking = frames_per_second, writes_before_speaking
        self._segments: list[str | list[int]] = []
        self._is_open = False  # more codes belong to the last segment

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(one for one in self._segments if isinstance(one, str))

    @property
    def seconds(self) -> float:
        """Of the sound that went to the client."""
        return self.num_samples / RESPONSE_RATE

    def add_text(self, text: str) -> None:
        """More text."""
        if self._segments and isinstance(self._segments[-1], str):
            self._segments[-1] += text
        else:
            self._segments.append(text)

    def add_codes(self, codes: Sequence[int], *, is_last: bool = False) -> None:
        """More codes, of the segment that is open, or of a new one; ``is_last``: none of that one follow."""
        last = self._segments[-1] if self._segments and self._is_open else None
        if isinstance(last, list):
            last.extend(codes)
        elif codes:
            self._segments.append(list(codes))
        self._is_open = not is_last

    def cut(self, seconds: float) -> None:
        """Keeps what was heard in the first seconds of its sound, and of its text what was spoken by then."""
        self.num_samples = min(self.num_samples, round(seconds * RESPONSE_RATE))
        left = round(seconds * self._frames_per_second)
        kept: list[str | list[int]] = []
        text = ""
        for segment in self._segments:
            if isinstance(segment, str):
                text = segment
            elif left > 0:
                if text and self._writes_before_speaking:
                    kept.append(text)
                kept.append(self._vocabulary.joined([segment], left))
                text, left = "", left - self._num_frames(segment)
        self._segments = kept

    def shown(self, *, has_audio: bool) -> dict[str, Any]:
        """As `Content.shown`; its sound is not kept."""
        return (
            {"type": "output_audio", "transcript": self.text}
            if self.speaks
            else {"type": "output_text", "text": self.text}
        )

    async def said(self) -> Sequence[TextPart | AudioPart]:
        """As `Content.said`: of a segment that broke off, the frames that are whole."""
        whole = [one if isinstance(one, str) else self._vocabulary.joined([one]) for one in self._segments]
        return [
            TextPart(one) if isinstance(one, str) else AudioPart(codes=one, where="output_audio")
            for one in whole
            if one
        ]

    def _num_frames(self, segment: list[int]) -> int:
        layout = self._vocabulary.row_layout
        return len(segment) if layout is None else layout.whole_frames(len(segment))


@dataclass(eq=False)
class Item:
    """A message of the conversation."""

    id: str
    role: Role
    content: list[Content] = field(default_factory=list)
    status: Status = "completed"

    @property
    def recordings(self) -> list[Heard]:
        """Those of the client."""
        return [one for one in self.content if isinstance(one, Heard)]

    def shown(self, *, has_audio: bool = False) -> dict[str, Any]:
        """As clients read it."""
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "role": self.role,
            "status": self.status,
            "content": [one.shown(has_audio=has_audio) for one in self.content],
        }

    async def message(self) -> Message | None:
        """As the model reads it; None if nothing of it is left."""
        parts = [part for one in self.content for part in await one.said()]
        return Message(self.role, parts) if parts else None

    def forget(self) -> None:
        """Lets go of its recordings."""
        for one in self.recordings:
            one.forget()
