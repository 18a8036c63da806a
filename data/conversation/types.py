"""The typed conversation record: messages of text and audio parts."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import (
    AudioInfo,
    Mono,
    load_audio,
    probe_audio,
    stream_audio,
)
from audiollm.data.audio.segments import Segment
from audiollm.data.audio.waveforms import channels_first, resample, waveform_from_array

# Metadata round a recording's length; a duration so close to it is that length and cuts nothing.
WHOLE_TOLERANCE_SECONDS = 0.01

ROLES = ("system", "user", "assistant", "tool")

_FileBytes = bytes  # AudioPart has a field called bytes


@dataclass(frozen=True)
class TextPart:
    """A piece of text."""

    text: str

    def to_dict(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, eq=False)
class AudioPart:
    """A piece of audio: exactly one of path, bytes, array (with its rate) and codes."""

    path: str | None = None
    bytes: _FileBytes | None = field(default=None, repr=False)  # of an audio file
    array: np.ndarray | None = field(default=None, repr=False)  # samples [N], [C, N] or [N, C]
    sampling_rate: int | None = None  # Hz, of the array
    codes: list[int] | None = field(default=None, repr=False)  # one codebook's, each >= 0
    audio_tokenizer: str | None = field(default=None, repr=False)  # fingerprint of what made the codes, if known
    offset: float = 0.0  # seconds in front of what is meant
    duration: float | None = None  # seconds that are meant; None: all that follows
    where: str = field(default="", repr=False)  # its place in its file, for messages; not compared

    def __post_init__(self) -> None:
        kinds = [name for name in ("path", "bytes", "array", "codes") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"audio holds {' and '.join(kinds) or 'nothing'}; give one of path, bytes, array, codes")
        if (self.array is None) != (self.sampling_rate is None):
            raise ValueError("audio: give array and sampling_rate together")
        Segment(self.offset, self.duration)  # raises for what is no time
        if self.cut and self.codes is not None:
            raise ValueError("audio: offset and duration cut a recording; codes cannot be cut by them")
        if self.audio_tokenizer is not None and self.codes is None:
            raise ValueError("audio: audio_tokenizer says what made the codes; it goes with codes only")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AudioPart):
            return NotImplemented
        names = ("path", "bytes", "sampling_rate", "codes", "audio_tokenizer", "offset", "duration")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        if self.array is None or other.array is None:
            return same and self.array is other.array
        return same and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.path, self.bytes, self.sampling_rate, self.offset, self.duration))

    def load(
        self, sample_rate: int | None = None, mono: Mono = "first", max_seconds: float | None = None
    ) -> tuple[Tensor, int]:
        """Decodes the audio.

        The defaults, native rate and first channel, are how an audio tokenizer wants it (it resamples its own way):
        so codes made while training equal codes made beforehand by
        `tokenize_corpus`.

        Args:
            sample_rate: Hz to resample to; ``None`` keeps the recording's own.
            mono: "first" or "mean", as for `load_audio`.
            max_seconds: a longer file is refused before it is decoded. ``None``: any length.

        Returns:
            ``(waveform float32 [N], sample_rate)``.

        Raises:
            AudioError: the recording cannot be used; the message names the record too.
            ValueError: the part holds codes.
        """
        if self.codes is not None:
            raise ValueError(f"{self.where or 'audio part'}: holds codes already; there is nothing to decode")
        with self._errors_named():
            if self.array is None:
                return load_audio(self.file, sample_rate, mono, max_seconds=max_seconds, **self._segment())
            rate = self.sampling_rate
            assert rate is not None  # __post_init__ pairs them
            waveform = self._cut_samples(waveform_from_array(self.array, mono), rate)
            if max_seconds is not None and len(waveform) > max_seconds * rate:
                reason = f"is {len(waveform) / rate:.6g} s of audio; at most {max_seconds:g} s are taken here"
                raise AudioError("<array>", reason)
            if sample_rate is None or sample_rate == rate:
                return waveform, rate
            return resample(waveform, rate, sample_rate), sample_rate

    def stream(self, mono: Mono = "first", block_seconds: float = 30.0) -> Iterator[Tensor]:
        """Decodes an audio file block by block at its own rate, in flat memory; together the blocks equal `load`.

        Raises:
            AudioError: as for `load`, when the iteration reaches the defect.
            ValueError: the part holds no file.
        """
        with self._errors_named():
            yield from stream_audio(self.file, None, mono, block_seconds, **self._segment())

    def probe(self) -> AudioInfo:
        """Reads rate, channels and length of the audio, from the file's header where that tells.

        Raises:
            AudioError: the recording cannot be used; the message names the record too.
            ValueError: the part holds codes.
        """
        with self._errors_named():
            if self.array is None:
                return probe_audio(self.file, **self._segment())
            assert self.sampling_rate is not None  # __post_init__ pairs them
            num_samples = len(self._cut_samples(waveform_from_array(self.array, "first"), self.sampling_rate))
            num_channels = len(channels_first(self.array))
            return AudioInfo(self.sampling_rate, num_channels, num_samples, f"array {self.array.dtype}")

    def _segment(self) -> dict[str, Any]:
        """Where the part begins and how long it lasts, as the readers of files take it; nothing for a whole file.

        A duration that is the recording's own, but for rounding, says how long it is and cuts nothing off; nor does a
        segment ask for more than there is if it ends behind the recording by no more than that.
        """
        duration = self.duration
        if duration is not None and self._reaches_end(probe_audio(self.file).duration_seconds):
            duration = None
        return {"offset": self.offset, "duration": duration}

    def _reaches_end(self, whole_seconds: float) -> bool:
        assert self.duration is not None  # asked by those that have one
        beyond = self.offset + self.duration - whole_seconds
        least = 0.0 if self.offset else -WHOLE_TOLERANCE_SECONDS
        return self.offset < whole_seconds and least <= beyond <= WHOLE_TOLERANCE_SECONDS

    def _cut_samples(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """The part of samples in memory, float32 [N] to [n]."""
        is_to_end = self.duration is None or self._reaches_end(len(waveform) / sample_rate)
        segment = Segment(self.offset, None if is_to_end else self.duration)
        first = segment.first_sample(sample_rate)
        return waveform[first : first + segment.num_samples(len(waveform), sample_rate, "<array>")]

    @property
    def cut(self) -> dict[str, float]:
        """The part's ``offset`` and ``duration`` as a record says them; empty for a whole recording."""
        offset = {"offset": self.offset} if self.offset else {}
        return offset if self.duration is None else offset | {"duration": self.duration}

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except AudioError as error:
            raise AudioError(f"{self.where}: {error.source}" if self.where else error.source, error.reason) from error
        except OSError as error:  # what reading a file raises that can be opened, such as those of /proc
            name = self.path or "<audio>"
            raise AudioError(
                f"{self.where}: {name}" if self.where else name, f"cannot be read: {error.strerror or error}"
            ) from error

    @property
    def file(self) -> str | _FileBytes:
        """The path or the bytes of the audio file; for parts that hold one of them."""
        source = self.path if self.path is not None else self.bytes
        if source is None:
            raise ValueError(f"{self.where or 'audio part'}: holds {'codes' if self.codes else 'samples'}, not a file")
        return source

    def to_dict(self) -> dict[str, Any]:
        if self.codes is not None:
            made_by = {} if self.audio_tokenizer is None else {"audio_tokenizer": self.audio_tokenizer}
            return {"type": "audio", "codes": list(self.codes), **made_by}
        if self.array is not None:
            return {"type": "audio", "array": self.array, "sampling_rate": self.sampling_rate, **self.cut}
        file = {"path": self.path} if self.path is not None else {"bytes": self.bytes}
        return {"type": "audio", **file, **self.cut}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str  # one of ROLES
    content: list[TextPart | AudioPart]
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        optional = {"name": self.name, "tool_calls": self.tool_calls, "tool_call_id": self.tool_call_id}
        present = {key: value for key, value in optional.items() if value is not None}
        return {"role": self.role, "content": [part.to_dict() for part in self.content], **present}


@dataclass(frozen=True)
class Conversation:
    """One record. ``metadata["audio_tokenizer"]`` says what made all codes in it that do not say so themselves."""

    id: str  # the record's own, or else its place, such as train.jsonl:7
    messages: list[Message]
    task: str | None = None
    tools: list[dict[str, Any]] | None = None  # JSON schemas of the functions that the assistant may call
    metadata: dict[str, Any] = field(default_factory=dict)  # every other key of the record
    where: str = field(default="", compare=False, repr=False)  # file and line, for messages

    @property
    def audio_parts(self) -> list[AudioPart]:
        """All audio of the conversation, in order."""
        return [part for message in self.messages for part in message.content if isinstance(part, AudioPart)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the record; parsing it gives this conversation back."""
        optional = {"task": self.task, "tools": self.tools}
        present = {key: value for key, value in optional.items() if value is not None}
        messages = [message.to_dict() for message in self.messages]
        made_by = self.metadata.get("audio_tokenizer")
        for part in itertools.chain.from_iterable(message["content"] for message in messages):
            if made_by is not None and part.get("audio_tokenizer") == made_by:
                del part["audio_tokenizer"]  # said once for the record
        return {"id": self.id, "messages": messages, **present, **self.metadata}
