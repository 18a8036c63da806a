"""Samples to bytes, while they come: the six formats of OpenAI's speech endpoint, one header per response.

MP3 and FLAC are libsndfile's, WAV and PCM are plain, Opus in Ogg and AAC come from ffmpeg's libraries through PyAV: ogg
pages of libsndfile come late, and it has no AAC. All bytes of a streamed response go out once and are never gone back
to; what a header cannot know yet says so: sizes of 0xFFFFFFFF in WAV, no number of samples in FLAC, no length header in
MP3. `encode_whole` knows the length, and writes it.
"""
# Shapes: n samples.

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

import numpy as np
import soundfile
from torch import Tensor

from audiollm.data.audio.integrity.mpeg import frame_at
from audiollm.data.audio.writing import AudioWriter, WavPipe

from .pyav import import_pyav

RESPONSE_RATE = 24_000
"""Sample rate of every response in Hz: OpenAI's, which its clients' players take for granted."""
OPUS_BITS_PER_SECOND = 48_000  # of one channel: speech is transparent well below
AAC_BITS_PER_SECOND = 64_000
OPUS_PAGE_MICROSECONDS = 20_000  # one page for each packet; ffmpeg's default of a second arrives too late
# libsndfile's way to say 64 kbit/s: the share from 160 down to 8 kbit/s. A constant rate, because a player takes the
# length of a stream from the size and the rate of its first frame.
MP3_COMPRESSION = (160 - 64) / (160 - 8)


@dataclass(frozen=True)
class SoundFormat:
    """One format of responses."""

    name: str
    """As requests name it."""
    media_type: str
    """MIME type."""
    extension: str
    """Of a file of it, with its dot."""
    needs_pyav: bool = False
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """HTTP headers that belong to it, besides ``Content-Type``."""


_RATE_HEADERS = MappingProxyType({"X-Sample-Rate": str(RESPONSE_RATE), "X-Channels": "1", "X-Sample-Format": "s16le"})
FORMATS: Mapping[str, SoundFormat] = MappingProxyType(
    {
        "mp3": SoundFormat("mp3", "audio/mpeg", ".mp3"),
        "opus": SoundFormat("opus", "audio/ogg", ".opus", needs_pyav=True),
        "aac": SoundFormat("aac", "audio/aac", ".aac", needs_pyav=True),
        "flac": SoundFormat("flac", "audio/flac", ".flac"),
        "wav": SoundFormat("wav", "audio/wav", ".wav"),
        "pcm": SoundFormat("pcm", "audio/pcm", ".pcm", headers=_RATE_HEADERS),
    }
)
"""The formats by name. pcm is 16 bit, little-endian, one channel of `RESPONSE_RATE`, without a header."""
_ALIASES = {"pcm16": "pcm"}  # as chat completions call it


def sound_format(name: str) -> SoundFormat:
    """Finds a format, "pcm16" too, which is another name of pcm.

    Raises:
        ValueError: there is none of that name.
        PyAVMissingError: it needs PyAV, which is not installed.
    """
    found = FORMATS.get(_ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"the audio format {name!r} is unknown; choose among {', '.join(FORMATS)}")
    if found.needs_pyav:
        import_pyav(f"the format {found.name}")
    return found


class SoundEncoder:
    """Encodes one response, piece by piece; not shared between threads or responses.

    As a context manager it lets go of its encoder in any case, also where the reader of the response has left.

    Args:
        name: of the format: mp3, opus, aac, flac, wav, pcm or pcm16.

    Raises:
        ValueError: there is no such format.
        PyAVMissingError: it needs PyAV, which is not installed.
    """

    def __init__(self, name: str) -> None:
        self.format = sound_format(name)
        self._bytes = _Outgoing()
        self._encoding: _Encoding | None = _ENCODINGS[self.format.name](self._bytes)
        self._writer = AudioWriter(self._encoding, None, f"<{self.format.name} response>")

    @property
    def media_type(self) -> str:
        """MIME type of the bytes."""
        return self.format.media_type

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the bytes, besides ``Content-Type``."""
        return dict(self.format.headers)

    @property
    def num_samples(self) -> int:
        """Samples taken so far."""
        return self._writer.num_samples

    @property
    def num_clipped(self) -> int:
        """Samples among them that were outside [-1, 1]; `close` warns of them in the log."""
        return self._writer.num_clipped

    def write(self, samples: np.ndarray | Tensor) -> bytes:
        """Takes samples, gives the bytes that are ready: none, where a frame of the format is not full yet.

        Args:
            samples: floats ``[n]``, n >= 0, at `RESPONSE_RATE`; what is outside [-1, 1] is clipped and counted.

        Raises:
            AudioError: a sample is NaN or infinite.
            ValueError: not floats, not one channel, or the encoder is closed.
        """
        if self._encoding is None:
            raise ValueError("this encoder is closed: a response is encoded by one of its own")
        self._writer.write(samples)
        return self._bytes.take()

    def close(self) -> bytes:
        """Ends the recording, and gives the bytes of it that are left. A second call gives none."""
        if self._encoding is None:
            return b""
        encoding, self._encoding = self._encoding, None
        self._writer.finish()
        encoding.close()
        return self._bytes.take()

    def __enter__(self) -> SoundEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoding is not None:
            encoding, self._encoding = self._encoding, None
            encoding.close()


def encode_whole(samples: np.ndarray | Tensor, name: str) -> bytes:
    """Encodes a recording whose length is known, which WAV, FLAC and MP3 then say in their headers.

    Args:
        samples: floats ``[N]``, at `RESPONSE_RATE`; what is outside [-1, 1] is clipped, and a warning is logged.
        name: of the format, as for `SoundEncoder`.

    Raises:
        AudioError: a sample is NaN or infinite.
        ValueError: not floats, not one channel, or no such format.
        PyAVMissingError: the format needs PyAV, which is not installed.
    """
    found = sound_format(name)
    if found.name not in _SOUNDFILE_SETTINGS:
        with SoundEncoder(name) as encoder:
            return encoder.write(samples) + encoder.close()
    buffer = io.BytesIO()
    encoding = _SoundFile(buffer, found.name)
    try:
        writer = AudioWriter(encoding, None, f"<{found.name} response>")
        writer.write(samples)
        writer.finish()
    finally:
        encoding.close()
    return buffer.getvalue()


# --- what makes bytes of samples --------------------------------------------------------------------------------------


class _Encoding(Protocol):
    """An encoder as `AudioWriter` sees it, with an end."""

    format: str
    subtype: str

    def write(self, data: np.ndarray) -> None: ...

    def close(self) -> None: ...


class _Outgoing:
    """A file of which all that is written can be taken at once; what is gone cannot be written over.

    libsndfile goes back at the end, to write the length into the header; in a response there is no way back.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._num_taken = self._position = 0

    def take(self) -> bytes:
        taken = bytes(self._held)
        self._held.clear()
        self._num_taken += len(taken)
        return taken

    def drop(self, num_bytes: int) -> None:
        """Forgets the first bytes that are held: what follows stays where the encoder thinks it is."""
        del self._held[:num_bytes]
        self._num_taken += num_bytes

    @property
    def held(self) -> bytes:
        return bytes(self._held)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        end = self._num_taken + len(self._held)
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: end}[whence]
        return self._position

    def write(self, data: Any) -> int:
        data = bytes(data)
        start = self._position - self._num_taken
        if start >= 0:
            self._held[start : start + len(data)] = data
        self._position += len(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing: bytes are there at once."""


class _Appending:
    """The same for an encoder that shall not go back: it has no ``seek``."""

    def __init__(self, file: _Outgoing) -> None:
        self.write = file.write


class _Pcm:
    format, subtype = "RAW", "PCM_16"

    def __init__(self, file: _Outgoing) -> None:
        self._file = file

    def write(self, data: np.ndarray) -> None:
        self._file.write(data.astype("<i2").tobytes())

    def close(self) -> None: ...


class _Wav(WavPipe):
    """Its header is written when it is made, and goes out with the first samples."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, RESPONSE_RATE)

    def close(self) -> None: ...


_SOUNDFILE_SETTINGS: Mapping[str, dict[str, Any]] = {
    "mp3": {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": MP3_COMPRESSION,
    },
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "wav": {"format": "WAV", "subtype": "PCM_16"},
}


class _SoundFile:
    """libsndfile's encoder."""

    def __init__(self, file: Any, name: str) -> None:
        self._sound_file = soundfile.SoundFile(file, "w", RESPONSE_RATE, 1, **_SOUNDFILE_SETTINGS[name])
        self.format, self.subtype = self._sound_file.format, self._sound_file.subtype

    def write(self, data: np.ndarray) -> None:
        self._sound_file.write(data)

    def close(self) -> None:
        self._sound_file.close()


class _StreamedMp3(_SoundFile):
    """Without the frame that LAME leaves free for the length: in a stream it stays empty, a 24th of a second of it."""

    def __init__(self, file: _Outgoing) -> None:
        super().__init__(file, "mp3")
        self._file, self._is_begun = file, False

    def write(self, data: np.ndarray) -> None:
        super().write(data)
        self._begin()

    def close(self) -> None:
        super().close()
        self._begin()

    def _begin(self) -> None:
        held = self._file.held
        if self._is_begun or not held:
            return
        self._is_begun = True
        frame = frame_at(held)
        if frame is not None and frame.num_bytes <= len(held) and not any(held[4 : frame.num_bytes]):
            self._file.drop(frame.num_bytes)


class _PyAV:
    """One of ffmpeg's encoders and a container, through PyAV."""

    format, subtype = "PyAV", "FLOAT"

    def __init__(
        self, file: _Outgoing, name: str, container: str, codec: str, bits_per_second: int, options: dict[str, str]
    ) -> None:
        self._av = import_pyav(f"the format {name}")
        self._container = self._av.open(_Appending(file), "w", format=container, options=options)
        self._stream = self._container.add_stream(codec, rate=RESPONSE_RATE, layout="mono")
        self._stream.bit_rate = bits_per_second
        self._num_samples = 0

    def write(self, data: np.ndarray) -> None:
        if not len(data):
            return
        frame = self._av.AudioFrame.from_ndarray(data[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RESPONSE_RATE, self._num_samples
        self._num_samples += len(data)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _opus(file: _Outgoing) -> _PyAV:
    return _PyAV(file, "opus", "ogg", "libopus", OPUS_BITS_PER_SECOND, {"page_duration": str(OPUS_PAGE_MICROSECONDS)})


def _aac(file: _Outgoing) -> _PyAV:
    return _PyAV(file, "aac", "adts", "aac", AAC_BITS_PER_SECOND, {})


_ENCODINGS: Mapping[str, Callable[[_Outgoing], _Encoding]] = {
    "mp3": _StreamedMp3,
    "opus": _opus,
    "aac": _aac,
    "flac": lambda file: _SoundFile(file, "flac"),
    "wav": _Wav,
    "pcm": _Pcm,
}
