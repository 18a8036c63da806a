"""Opens any audio file, whatever it is called: libsndfile where it can, ffmpeg where it must.

Everything that is wrong with a file before its first sample is an :class:`AudioError` that names the file and the
reason; a file that was cut is noticed here, where its header says so.
"""
# Shapes: n samples, C channels.

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile

from .containers import joins_several_ogg_streams, mp3_length_header, promised_size

AudioSource = str | os.PathLike[str] | bytes | BinaryIO

# An MP3's own length header counts encoder delay and padding differently from one encoder to the next.
MP3_LENGTH_TOLERANCE = 1152  # samples: one frame
GIT_LFS_POINTER = b"version https://git-lfs"
# Formats that hold one recording. Playlists are left out: they make ffmpeg open other files.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,mp3,mpeg,mpegts,ogg,"
    "rm,tta,voc,w64,wav,wv"
)
AU_HEADER_BYTES = 24


class AudioError(ValueError):
    """A recording that cannot be used; the message names it and says why.

    Args:
        source: the file's path, or what stands for it.
        reason: what is wrong, and what to do about it where that is known.
    """

    def __init__(self, source: str, reason: str = "") -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" if self.reason else self.source


@dataclass
class AudioStream:
    """An opened recording, whoever decodes it."""

    sample_rate: int  # Hz
    num_channels: int
    num_samples: int | None  # None: only decoding tells
    format: str
    length_tolerance: int  # samples that may be missing at the end without the file being cut
    read: Callable[[int], np.ndarray]  # number of samples wanted -> float32 [n, C]; fewer at the end, then none


def source_name(source: AudioSource) -> str:
    """Returns what an error message calls a source: its path, or a description of what has none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<file object>"


@contextlib.contextmanager
def open_stream(source: AudioSource, name: str) -> Iterator[AudioStream]:
    """Opens a recording for the block that follows.

    Args:
        source: path, the bytes of a file, or a binary file object.
        name: what an error calls it.

    Raises:
        AudioError: missing, a directory, empty, truncated (as far as the header tells) or not audio; ``read`` raises it
            too.
    """
    with contextlib.ExitStack() as stack:
        file, num_bytes = _binary_file(source, name, stack)
        _check_whole(file, num_bytes, name)
        unsupported = ""
        if joins_several_ogg_streams(file, num_bytes):
            unsupported = "joins several Ogg streams, of which libsndfile plays only the first"
        else:
            try:
                stream = _open_with_libsndfile(file, num_bytes, stack)
            except soundfile.LibsndfileError as error:
                unsupported = f"libsndfile cannot read it ({cleaned_message(error.error_string)})"
        if unsupported:
            stream = _open_with_ffmpeg(source, file, name, unsupported, stack)
        yield stream


def _binary_file(source: AudioSource, name: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, int]:
    """Opens a source; returns a seekable file and its size, which is at least 1."""
    file: BinaryIO
    if isinstance(source, (str, os.PathLike)):
        file = stack.enter_context(_open_path(os.fspath(source), name))
    elif isinstance(source, bytes):
        file = io.BytesIO(source)
    elif hasattr(source, "read"):
        seekable = getattr(source, "seekable", None)
        file = source if seekable is not None and seekable() else io.BytesIO(source.read())
    else:
        raise TypeError(f"an audio source is a path, bytes or a binary file object, not {type(source).__name__}")
    num_bytes = file.seek(0, os.SEEK_END)
    if num_bytes == 0:
        raise AudioError(name, "is empty (0 bytes)")
    return file, num_bytes


def _open_path(path: str, name: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(name, "is a directory; give an audio file")
        if not stat.S_ISREG(mode):
            raise AudioError(name, "is not a regular file; for a pipe or device, pass an open binary file object")
        # Unbuffered, because libsndfile reads from the descriptor itself.
        return open(path, "rb", buffering=0)
    except FileNotFoundError as error:
        is_url = "://" in path
        raise AudioError(name, "is a URL; download the file first" if is_url else "no such file") from error
    except OSError as error:
        raise AudioError(name, f"cannot be opened: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(name, f"is not a valid path: {error}") from error


def _check_whole(file: BinaryIO, num_bytes: int, name: str) -> None:
    file.seek(0)
    head = file.read(len(GIT_LFS_POINTER))
    if head == GIT_LFS_POINTER:
        raise AudioError(name, "is a Git LFS pointer, not the recording; run `git lfs pull`")
    promised = promised_size(file, num_bytes)
    if promised is not None and promised > num_bytes:
        raise AudioError(
            name, f"is truncated: its header promises audio up to byte {promised}, but the file ends at {num_bytes}"
        )


class _SequentialSoundFile(soundfile.SoundFile):
    """Reads straight on. SoundFile seeks after every block, which FLAC of unknown length cannot do."""

    def seekable(self) -> bool:
        return False


class _PrefixedFile:
    """A file seen without its name (soundfile would guess a format from it), behind a prefix of bytes."""

    def __init__(self, file: BinaryIO, num_bytes: int, prefix: bytes = b"", start: int = 0) -> None:
        self._file, self._prefix, self._start, self._position = file, prefix, start, 0
        self._size = len(prefix) + num_bytes - start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, num_bytes: int) -> bytes:
        data = self._prefix[self._position : self._position + num_bytes]
        if len(data) < num_bytes:
            self._file.seek(self._start + self._position + len(data) - len(self._prefix))
            data += self._file.read(num_bytes - len(data))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _open_with_libsndfile(file: BinaryIO, num_bytes: int, stack: contextlib.ExitStack) -> AudioStream:
    length_header = mp3_length_header(file, num_bytes)
    file.seek(0)
    if length_header is not None:
        opened = _SequentialSoundFile(_PrefixedFile(file, num_bytes, *length_header))
    elif isinstance(file, io.FileIO):
        opened = _SequentialSoundFile(file.fileno(), closefd=False)
    else:
        opened = _SequentialSoundFile(_PrefixedFile(file, num_bytes))
    reader = stack.enter_context(opened)
    # Behind a length header of ours the count is a bound, not a length.
    has_length = length_header is None and 0 <= reader.frames < 2**62  # libsndfile's "unknown" is the largest integer
    is_mp3 = reader.subtype.startswith("MPEG")
    return AudioStream(
        sample_rate=reader.samplerate,
        num_channels=reader.channels,
        num_samples=reader.frames if has_length else None,
        format=f"{reader.format} {reader.subtype}",
        length_tolerance=MP3_LENGTH_TOLERANCE if is_mp3 else 0,
        read=lambda num_samples: reader.read(num_samples, dtype="float32", always_2d=True),
    )


def _open_with_ffmpeg(
    source: AudioSource, file: BinaryIO, name: str, unsupported: str, stack: contextlib.ExitStack
) -> AudioStream:
    """Lets ffmpeg write 32-bit float AU to a pipe: a header with rate and channels, then the samples."""
    executable = shutil.which("ffmpeg")
    if executable is None:
        file.seek(0)
        raise AudioError(
            name,
            f"is not audio, or not in a supported format: {unsupported}, it starts with {file.read(12)!r}, and there "
            "is no ffmpeg on the PATH to try. Convert it to WAV, FLAC, Ogg, Opus or MP3, or install ffmpeg",
        )
    if isinstance(source, (str, os.PathLike)):
        path = os.path.abspath(source)
    else:
        # A file and not a pipe: MP4 keeps its index at the end.
        copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="audiollm-"))  # noqa: SIM115
        file.seek(0)
        shutil.copyfileobj(file, copy)
        copy.flush()
        path = copy.name
    messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    command = [executable, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe"]
    command += ["-format_whitelist", FFMPEG_FORMATS, "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise AudioError(name, f"{unsupported}, and ffmpeg cannot be started: {error.strerror}") from error
    stack.callback(_stop, process)
    pipe = process.stdout
    assert pipe is not None  # we asked for it
    header = pipe.read(AU_HEADER_BYTES)
    if len(header) < AU_HEADER_BYTES:
        process.wait()
        raise AudioError(name, f"is not audio, or damaged: {unsupported}, and ffmpeg says: {_first_line(messages)}")
    offset, _, _, sample_rate, num_channels = struct.unpack(">4x5I", header)
    pipe.read(offset - AU_HEADER_BYTES)
    bytes_per_sample = 4 * num_channels

    def read(num_samples: int) -> np.ndarray:
        data = pipe.read(num_samples * bytes_per_sample)
        if len(data) < num_samples * bytes_per_sample and process.wait() != 0:
            raise AudioError(name, f"is damaged or truncated; ffmpeg says: {_first_line(messages)}")
        samples = np.frombuffer(data[: len(data) // bytes_per_sample * bytes_per_sample], dtype=">f4")
        return samples.astype(np.float32).reshape(-1, num_channels)

    return AudioStream(sample_rate, num_channels, None, "ffmpeg", 0, read)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is not None:
        process.stdout.close()
    process.kill()
    process.wait()


def _first_line(messages: Any) -> str:
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else "nothing"


def cleaned_message(message: str) -> str:
    """Strips what libsndfile puts around its messages."""
    return message.removeprefix("Error : ").strip().rstrip(".") or "no reason given"
