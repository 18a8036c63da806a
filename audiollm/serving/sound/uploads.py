"""Sound that a request brought, read within limits: of a stranger's bytes nothing is believed that was not counted.

Formats are told by content; names and declared types are never looked at. What `audiollm.data.audio` refuses in a file
(truncated, joined, damaged, something else than audio) is refused here, and what a file becomes is bounded while it
is decoded: 25 MB of Opus are hours of sound, and headers promise any rate and any number of channels.
"""
# Shapes: N samples.

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass, fields
from typing import NamedTuple

from torch import Tensor

from audiollm.data.audio import AudioError, AudioLimitError, AudioLimits, load_audio
from audiollm.data.audio.channels import Mono

MEBIBYTE = 1 << 20
_FOREIGN_TO_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


class UploadError(ValueError):
    """Sound of a request that is not taken: one of the two below.

    Args:
        name: what the request calls it, such as "file" or "messages[0].content[1].input_audio.data".
        reason: what is wrong with it, and what to do.
    """

    status: int = 400
    """Of the HTTP response."""
    code: str = "invalid_audio"
    """For programs, in the body of the response."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class UnreadableUploadError(UploadError):
    """No audio, broken, empty, or in no known format."""


class LargeUploadError(UploadError):
    """More bytes, seconds, channels or work than the limits allow."""

    status = 413
    code = "audio_too_large"


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """How much sound a request may bring.

    Raises:
        ValueError: a limit that is not positive.
    """

    max_bytes: int = 25 * MEBIBYTE
    """Most bytes of a file, as it comes (of base64: once it is decoded)."""

    max_decoded_bytes: int = 256 * MEBIBYTE
    """Most bytes of its samples, of all channels at its own rate, as float32."""

    max_seconds: float = 600.0
    """Longest recording."""

    max_channels: int = 8
    """Most channels."""

    max_decoding_seconds: float = 30.0
    """Longest that decoding may take by the clock; ten minutes of sound take one or two."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
                raise ValueError(f"{limit.name}={value}: use a positive number")

    @property
    def decoding(self) -> AudioLimits:
        """The part of them that `audiollm.data.audio.load_audio` counts."""
        return AudioLimits(
            max_channels=self.max_channels,
            max_decoded_bytes=self.max_decoded_bytes,
            max_decoding_seconds=self.max_decoding_seconds,
        )


class Recording(NamedTuple):
    """Samples with their rate; as the pair that it is, it goes wherever audiollm takes a recording."""

    waveform: Tensor  # float32 [N], N >= 1
    sample_rate: int  # Hz

    @property
    def duration_seconds(self) -> float:
        return len(self.waveform) / self.sample_rate


def read_upload(data: bytes, limits: UploadLimits, name: str = "audio", mono: Mono = "first") -> Recording:
    """Decodes the bytes of a recording, at its own rate.

    Args:
        data: the bytes of a file, whatever it was called.
        limits: how much is taken.
        name: what an error calls it; nothing else is done with it.
        mono: which waveform of several channels: the first one, as commands hear it, or their mean.

    Raises:
        UnreadableUploadError: empty, no audio, damaged or truncated, or in no format that is read here.
        LargeUploadError: more than the limits allow.
    """
    _check_size(len(data), limits, name)
    try:
        return Recording(*load_audio(data, mono=mono, max_seconds=limits.max_seconds, limits=limits.decoding))
    except AudioLimitError as error:
        raise LargeUploadError(name, error.reason) from error
    except AudioError as error:
        raise UnreadableUploadError(name, error.reason) from error


class UploadBuffer:
    """Takes the bytes of an upload as they arrive, and no more of them than the limits allow.

    Args:
        limits: how much is taken.
        name: what an error calls it.
    """

    def __init__(self, limits: UploadLimits, name: str = "audio") -> None:
        self._limits, self._name = limits, name
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        """Appends a piece.

        Raises:
            LargeUploadError: it would be more than ``max_bytes``; what came before is let go.
        """
        num_bytes = len(self._data) + len(chunk)
        if num_bytes > self._limits.max_bytes:
            self._data.clear()
        _check_size(num_bytes, self._limits, self._name)
        self._data += chunk

    def read(self, mono: Mono = "first") -> Recording:
        """Decodes what came; see `read_upload`."""
        return read_upload(bytes(self._data), self._limits, self._name, mono)


def decode_base64(text: str, limits: UploadLimits, name: str = "audio") -> bytes:
    """Decodes base64 (RFC 4648, section 4), of which the size is known before it is decoded.

    Args:
        text: base64 with its padding, without white space, and no data URL.
        limits: of them ``max_bytes``.
        name: what an error calls it.

    Raises:
        UnreadableUploadError: empty, or not such base64; what it is instead is said.
        LargeUploadError: it would be more than ``max_bytes``.
    """
    _check_size(len(text) // 4 * 3 - len(text[-2:]) + len(text[-2:].rstrip("=")), limits, name)
    if not text:
        raise UnreadableUploadError(name, "is empty (0 characters of base64)")
    if text[:5].lower() == "data:":
        raise UnreadableUploadError(name, "is a data URL: send only the base64 that follows its comma")
    if foreign := _FOREIGN_TO_BASE64.search(text):
        raise UnreadableUploadError(name, _foreign_character(foreign[0], foreign.start()))
    num_characters = len(text.rstrip("="))
    if num_characters % 4 == 1 or len(text) - num_characters != -num_characters % 4:
        # Python's decoder lets some of these pass.
        raise UnreadableUploadError(name, "is not base64, or not all of it: its length or its padding with = is wrong")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise UnreadableUploadError(name, f"is not base64, or not all of it: {error}") from error


def _foreign_character(character: str, place: int) -> str:
    if character.isspace():
        return f"holds white space, at character {place}: send base64 in one piece, without line breaks (base64 -w 0)"
    if character in "-_":
        return f"holds {character!r} at character {place}: send ordinary base64, with + and /, not that of URLs"
    return f"is not base64: it holds {character!r} at character {place}"


def _check_size(num_bytes: int, limits: UploadLimits, name: str) -> None:
    if num_bytes > limits.max_bytes:
        raise LargeUploadError(name, f"is larger than {limits.max_bytes} bytes, which is the limit here")
