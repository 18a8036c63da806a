"""Audio files: decode any of them, probe them, stream them in flat memory.

The format is recognised by content, never by the name of the file. libsndfile (through soundfile) reads WAV, FLAC,
Ogg Vorbis, Opus, MP3, AIFF, CAF, AU and more; what it cannot read goes to ffmpeg if that is on the PATH. Everything
that is wrong with a file is an :class:`AudioError` that names the file and the reason.
"""
# Shapes: N samples, C channels.

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .containers import joins_several_ogg_streams, mp3_length_header, promised_size

AudioSource = str | os.PathLike[str] | bytes | BinaryIO
Mono = Literal["mean", "first"]

RESAMPLE_QUALITY = "HQ"
PROBE_BLOCK_SECONDS = 30.0
# An MP3's own length header counts encoder delay and padding differently from one encoder to the next.
MP3_LENGTH_TOLERANCE = 1152  # samples: one frame
MAX_ARRAY_CHANNELS = 64  # more than any recording has: a 2-D array with more rows is [N, C], the wrong way round
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


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is, without its samples."""

    sample_rate: int  # Hz
    num_channels: int
    num_samples: int  # per channel
    format: str  # container and encoding, such as "WAV PCM_16"

    @property
    def duration_seconds(self) -> float:
        return self.num_samples / self.sample_rate


def load_audio(source: AudioSource, sample_rate: int | None = None, mono: Mono = "mean") -> tuple[Tensor, int]:
    """Decodes a whole recording.

    Args:
        source: path, the bytes of a file, or a binary file object (a seekable one is read from its beginning).
        sample_rate: Hz to resample to (soxr, high quality); ``None`` keeps the recording's own.
        mono: "mean" averages the channels, "first" takes the first one.

    Returns:
        ``(waveform, sample_rate)``: float32 ``[N]``, N >= 1. Integer encodings are scaled to [-1, 1); float ones are
        taken as they are.

    Raises:
        AudioError: missing, a directory, empty, truncated, not audio, without samples, NaN or infinite samples.
    """
    info: list[int] = []
    blocks = _waveform_blocks(source, _checked_rate(sample_rate), _checked_mono(mono), PROBE_BLOCK_SECONDS, info)
    waveform = np.concatenate(list(blocks))
    return torch.from_numpy(waveform), info[0] if sample_rate is None else sample_rate


def stream_audio(
    source: AudioSource, sample_rate: int | None = None, mono: Mono = "mean", block_seconds: float = 30.0
) -> Iterator[Tensor]:
    """Decodes a recording block by block, in memory that does not grow with its length.

    The concatenation of the blocks equals :func:`load_audio`, sample for sample, resampled or not.

    Args:
        source: as for :func:`load_audio`.
        sample_rate: Hz to resample to; ``None`` keeps the recording's own (:func:`probe_audio` tells it).
        mono: as for :func:`load_audio`.
        block_seconds: seconds of the recording that are decoded at a time.

    Yields:
        float32 ``[n]``, n >= 1; blocks differ a little in size when resampling.

    Raises:
        AudioError: as for :func:`load_audio`, when the iteration reaches the defect.
        ValueError: ``block_seconds`` is not positive.
    """
    if not block_seconds > 0:
        raise ValueError(f"block_seconds={block_seconds}: use a positive duration, such as 30")
    blocks = _waveform_blocks(source, _checked_rate(sample_rate), _checked_mono(mono), block_seconds, [])
    return (torch.from_numpy(block) for block in blocks)


def probe_audio(source: AudioSource) -> AudioInfo:
    """Reads what a recording is from its header; decodes it only where the header does not tell the length.

    Raises:
        AudioError: missing, a directory, empty, truncated (as far as the header tells), not audio, without samples.
    """
    name = source_name(source)
    with _opened(source, name) as stream:
        num_samples = stream.num_samples
        if num_samples is None:
            num_samples = sum(len(block) for block in _decoded_blocks(stream, name, PROBE_BLOCK_SECONDS))
        if num_samples == 0:
            raise AudioError(name, "holds no samples (0 s of audio)")
        return AudioInfo(stream.sample_rate, stream.num_channels, num_samples, stream.format)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resamples a waveform (soxr, high quality).

    Args:
        waveform: float ``[N]``.
        from_rate: its sample rate in Hz.
        to_rate: the wanted one.

    Returns:
        float32 ``[ceil(N * to_rate / from_rate)]``.

    Raises:
        ValueError: the waveform is not 1-D, or a rate is not a positive whole number.
    """
    if waveform.ndim != 1:
        raise ValueError(f"waveform has shape {list(waveform.shape)}: give one channel, [N]")
    _checked_rate(from_rate)
    _checked_rate(to_rate)
    samples = np.ascontiguousarray(waveform.detach().cpu().to(torch.float32).numpy())
    blocks = list(_resampled([samples], from_rate, to_rate))
    return torch.from_numpy(np.concatenate(blocks) if blocks else samples[:0].copy())


def waveform_from_array(array: Any, mono: Mono = "mean", *, name: str = "<array>") -> Tensor:
    """Makes a waveform of samples that are in memory already.

    Args:
        array: ``[N]`` or ``[C, N]``: NumPy array, tensor or list. Integers are scaled by their type's range (a list of
            integers has no such range and is refused).
        mono: as for :func:`load_audio`.
        name: what an error calls it.

    Returns:
        float32 ``[N]``, N >= 1.

    Raises:
        AudioError: wrong shape or type, no samples, NaN or infinite samples.
    """
    _checked_mono(mono)
    has_range = isinstance(array, (np.ndarray, Tensor))
    samples = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] > MAX_ARRAY_CHANNELS):
        raise AudioError(name, f"has shape {list(samples.shape)}; give samples [N] or channels and samples [C, N]")
    if samples.dtype.kind in "iu" and has_range:
        limits = np.iinfo(samples.dtype)
        half_range = (int(limits.max) - int(limits.min) + 1) // 2
        middle = half_range if samples.dtype.kind == "u" else 0
        samples = ((samples.astype(np.float64) - middle) / half_range).astype(np.float32)
    elif samples.dtype.kind != "f":
        raise AudioError(name, f"has samples of type {samples.dtype}; give floats in [-1, 1] or an integer array")
    channels = np.atleast_2d(samples.astype(np.float32)).T
    if not channels.size:
        raise AudioError(name, "holds no samples (0 s of audio)")
    return torch.from_numpy(_finite(_one_channel(channels, mono), 0, None, name))


def source_name(source: AudioSource) -> str:
    """Returns what an error message calls a source: its path, or a description of what has none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<file object>"


def _checked_rate(sample_rate: int | None) -> int | None:
    if sample_rate is not None and (not isinstance(sample_rate, int) or sample_rate <= 0):
        raise ValueError(f"sample_rate={sample_rate!r}: use a positive whole number of Hz, such as 16000")
    return sample_rate


def _checked_mono(mono: str) -> str:
    if mono not in ("mean", "first"):
        raise ValueError(f'mono={mono!r}: use "mean" (average of the channels) or "first" (the first channel)')
    return mono


# --- from a source to blocks of one channel ---------------------------------------------------------------------------


@dataclass
class _Stream:
    """An opened recording, whoever decodes it."""

    sample_rate: int
    num_channels: int
    num_samples: int | None  # None: only decoding tells
    format: str
    length_tolerance: int  # samples that may be missing at the end without the file being cut
    read: Callable[[int], np.ndarray]  # number of samples wanted -> float32 [n, C]; fewer at the end, then none


def _waveform_blocks(
    source: AudioSource, sample_rate: int | None, mono: str, block_seconds: float, rate_seen: list[int]
) -> Iterator[np.ndarray]:
    """Yields float32 [n] blocks, n >= 1; appends the recording's own rate to ``rate_seen``."""
    name = source_name(source)
    with _opened(source, name) as stream:
        rate_seen.append(stream.sample_rate)
        channels = _decoded_blocks(stream, name, block_seconds)
        blocks = _checked_blocks(channels, stream.sample_rate, mono, name)
        if sample_rate is not None and sample_rate != stream.sample_rate:
            blocks = _resampled(blocks, stream.sample_rate, sample_rate)
        yield from blocks


def _decoded_blocks(stream: _Stream, name: str, block_seconds: float) -> Iterator[np.ndarray]:
    """Yields float32 [n, C] and raises at the end if fewer samples came than the header promises."""
    block_samples = max(1, round(block_seconds * stream.sample_rate))
    num_samples = 0
    while stream.num_samples is None or num_samples < stream.num_samples:
        # Not a sample more than announced: behind its end a FLAC file may have a tag, over which the decoder stumbles.
        left = block_samples if stream.num_samples is None else stream.num_samples - num_samples
        try:
            block = stream.read(min(block_samples, left))
        except soundfile.LibsndfileError as error:
            seconds = num_samples / stream.sample_rate
            reason = f"is damaged or truncated: decoding fails after sample {num_samples} ({seconds:.3f} s)"
            raise AudioError(name, f"{reason}: {_cleaned(error.error_string)}") from error
        if not len(block):
            break
        num_samples += len(block)
        yield block
    if num_samples == 0:
        raise AudioError(name, "holds no samples (0 s of audio)")
    missing = 0 if stream.num_samples is None else stream.num_samples - num_samples
    if missing > stream.length_tolerance:
        raise AudioError(
            name,
            f"is truncated: its header promises {stream.num_samples} samples but they end after sample {num_samples} "
            f"({num_samples / stream.sample_rate:.3f} s)",
        )


def _checked_blocks(channels: Iterable[np.ndarray], rate: int, mono: str, name: str) -> Iterator[np.ndarray]:
    position = 0
    for block in channels:
        yield _finite(_one_channel(block, mono), position, rate, name)
        position += len(block)


def _one_channel(channels_NC: np.ndarray, mono: str) -> np.ndarray:
    if channels_NC.shape[1] == 1 or mono == "first":
        return np.ascontiguousarray(channels_NC[:, 0])
    return channels_NC.mean(axis=1, dtype=np.float32)


def _finite(samples: np.ndarray, position: int, rate: int | None, name: str) -> np.ndarray:
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        where = f"sample {position + first}" + (f" ({(position + first) / rate:.3f} s)" if rate else "")
        raise AudioError(name, f"holds {samples[first]} at {where}; samples must be finite numbers")
    return samples


def _resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Resamples a stream of float32 [n] to ceil(N * to_rate / from_rate) samples in all."""
    resampler = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality=RESAMPLE_QUALITY)
    num_in = num_out = 0
    for block in blocks:
        num_in += len(block)
        resampled = resampler.resample_chunk(block)
        num_out += len(resampled)
        if len(resampled):
            yield resampled
    # soxr rounds the length, which leaves nothing of a single sample at 44.1 kHz. The signal is zero after its end,
    # so a few zeros more give the last sample of the ceiling and change none before it.
    zeros = np.zeros(-(-from_rate // to_rate) + 1, dtype=np.float32)
    tail = resampler.resample_chunk(zeros, last=True)[: -(-num_in * to_rate // from_rate) - num_out]
    if len(tail):
        yield tail


# --- opening ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(source: AudioSource, name: str) -> Iterator[_Stream]:
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
                unsupported = f"libsndfile cannot read it ({_cleaned(error.error_string)})"
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


def _open_with_libsndfile(file: BinaryIO, num_bytes: int, stack: contextlib.ExitStack) -> _Stream:
    length_header = mp3_length_header(file, num_bytes)
    file.seek(0)
    if length_header is not None:
        opened = _SequentialSoundFile(_PrefixedFile(file, num_bytes, *length_header))
    elif isinstance(file, io.FileIO):
        opened = _SequentialSoundFile(file.fileno(), closefd=False)
    else:
        opened = _SequentialSoundFile(_PrefixedFile(file, num_bytes))
    reader = stack.enter_context(opened)
    has_length = length_header is None and 0 <= reader.frames < 2**62  # libsndfile's "unknown" is the largest integer
    is_mp3 = reader.subtype.startswith("MPEG")
    return _Stream(
        sample_rate=reader.samplerate,
        num_channels=reader.channels,
        num_samples=reader.frames if has_length else None,
        format=f"{reader.format} {reader.subtype}",
        length_tolerance=MP3_LENGTH_TOLERANCE if is_mp3 else 0,
        read=lambda num_samples: reader.read(num_samples, dtype="float32", always_2d=True),
    )


def _open_with_ffmpeg(
    source: AudioSource, file: BinaryIO, name: str, unsupported: str, stack: contextlib.ExitStack
) -> _Stream:
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

    return _Stream(sample_rate, num_channels, None, "ffmpeg", 0, read)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is not None:
        process.stdout.close()
    process.kill()
    process.wait()


def _first_line(messages: Any) -> str:
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else "nothing"


def _cleaned(message: str) -> str:
    """Strips what libsndfile puts around its messages."""
    return message.removeprefix("Error : ").strip().rstrip(".") or "no reason given"
