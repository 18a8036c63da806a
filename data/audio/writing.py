"""Audio that is written: to a file, of the format that its name says, whole or not at all; or as WAV into a pipe."""
# Shapes: N samples.

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import soundfile
import soxr
from torch import Tensor

from audiollm.data.files.atomic import atomic_write

from .channels import Mono
from .reading import load_audio, probe_audio
from .sources import AudioError

logger = logging.getLogger(__name__)

# Extension -> libsndfile's container and encoding.
OUTPUT_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
# Hz. What is given at another rate is resampled to the next higher one, so that nothing audible is lost.
OUTPUT_RATES = {
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
_PLAIN_WAV = ("WAV PCM_16", "WAV PCM_24", "WAV PCM_32")  # what every reader of WAV files knows
MAX_WAV_BYTES = 2**32 - 2**10  # a WAV header counts bytes with 32 bits, its own and those of other chunks too
_BLOCK_SAMPLES = 1 << 16  # libvorbis keeps a whole write on its stack: minutes at once overflow it


class _Sink:
    """The file as libsndfile sees it. Errors cannot pass through C code, so the first one is kept for later."""

    def __init__(self, file: IO[bytes]) -> None:
        self.error: OSError | None = None
        self.tell = file.tell
        self._file = file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:  # what is held is written first
            self.error = self.error or error
            return -1

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            return 0

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error


class _Encoder(Protocol):
    """What turns samples into bytes, such as a ``soundfile.SoundFile``."""

    format: str
    subtype: str

    def write(self, data: np.ndarray) -> None:
        """Takes int16 ``[n]`` where the subtype is PCM_16, else float32."""
        ...


class WavPipe:
    """Encodes WAV of 16 bit for a pipe, which cannot be gone back in: the header says that the length is not known.

    Its lengths are the largest that 32 bits hold, as ffmpeg writes them; readers then take all that comes.
    """

    format, subtype = "pipe", "PCM_16"

    def __init__(self, file: IO[bytes], sample_rate: int) -> None:
        self._file = file
        unknown = 0xFFFFFFFF
        encoding = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
        file.write(struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + encoding + struct.pack("<4sI", b"data", unknown))

    def write(self, data: np.ndarray) -> None:
        self._file.write(data.astype("<i2").tobytes())
        self._file.flush()


class AudioWriter:
    """Takes the blocks of one recording, in order; made by `open_audio_output` or `open_audio_pipe`."""

    def __init__(
        self, file: _Encoder, sink: _Sink | None, name: str, resampler: soxr.ResampleStream | None = None
    ) -> None:
        self.num_samples = 0
        """Samples written so far."""
        self.num_clipped = 0
        """Samples among them that were outside [-1, 1]."""
        self.peak = 0.0
        """Largest absolute value that was given."""
        self._file, self._sink, self._name, self._resampler = file, sink, name, resampler

    def write(self, waveform: Tensor | np.ndarray) -> None:
        """Appends samples.

        Args:
            waveform: floats, ``[n]`` or ``[1, n]``, n >= 0; what is outside [-1, 1] is clipped and counted.

        Raises:
            AudioError: a sample is NaN or infinite; the file becomes too large for its format.
            OSError: the disk is full.
            ValueError: not floats, or not one channel.
        """
        samples = _checked_samples(waveform)
        for start in range(0, len(samples), _BLOCK_SAMPLES):
            self._write_block(samples[start : start + _BLOCK_SAMPLES].astype(np.float32))

    def _write_block(self, block: np.ndarray) -> None:
        if not np.isfinite(block).all():
            first = int(np.argmin(np.isfinite(block)))
            position = self.num_samples + first
            raise AudioError(self._name, f"not written: sample {position} is {block[first]}; samples must be finite")
        if self._file.format == "WAV" and 2 * (self.num_samples + len(block)) > MAX_WAV_BYTES:
            raise AudioError(self._name, "not written: a WAV file holds at most 4 GiB; name it .flac or .ogg")
        magnitude = np.abs(block)
        self.num_clipped += int((magnitude > 1).sum())
        self.peak = max(self.peak, float(magnitude.max()))
        self._encode(block if self._resampler is None else self._resampler.resample_chunk(block))
        self.num_samples += len(block)

    def finish(self) -> None:
        """Writes what the resampler still holds, and says how many samples were clipped, if any were."""
        if self._resampler is not None:
            self._encode(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        if self.num_clipped:
            logger.warning(
                "%s: clipped %d of %d samples to [-1, 1] (the largest is %.3g)",
                self._name, self.num_clipped, self.num_samples, self.peak,
            )  # fmt: skip

    def _encode(self, block: np.ndarray) -> None:
        if self._file.subtype == "PCM_16":
            # Readers divide by 32768. Scaling by the same number gives a recording of 16 bits back bit by bit; hence
            # no dither, and +1.0, which has no such integer, loses one step without being counted as clipped.
            block = np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
        else:
            block = np.clip(block, -1.0, 1.0)
        try:
            self._file.write(block)
        except (soundfile.LibsndfileError, AssertionError):  # soundfile asserts that all of the block was taken
            self._raise_sink_error()
            raise
        self._raise_sink_error()

    def _raise_sink_error(self) -> None:
        if self._sink is not None:
            self._sink.raise_error()


@contextlib.contextmanager
def open_audio_output(path: str | os.PathLike[str], sample_rate: int) -> Iterator[AudioWriter]:
    """Opens a one-channel audio file that takes the place of ``path`` when the block ends well.

    Nothing appears under ``path`` before, and nothing remains if the block raises. Clipped samples are warned of.

    Args:
        path: ends in ``.wav`` (16 bit), ``.flac`` (16 bit), ``.ogg`` (Vorbis), ``.opus`` or ``.mp3``; its folder must
            exist.
        sample_rate: Hz. Opus and MP3 know few rates: what is of another is resampled to the next higher one.

    Yields:
        The writer, for `AudioWriter.write`.

    Raises:
        AudioError: another extension, no such folder, a directory, a sample rate that the format cannot hold, or
            nothing was written.
        OSError: the folder may not be written to, or the disk is full.
        ValueError: ``sample_rate`` is no positive whole number.
    """
    name = os.fspath(path)
    container, encoding = _output_format(name)
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)) or sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate!r}: give a positive whole number in Hz, such as 22050")
    if not Path(name).parent.is_dir():
        raise AudioError(name, f"cannot be written: there is no folder {Path(name).parent}; make it first")
    if Path(name).is_dir():
        raise AudioError(name, "is a directory; give the name of a file")
    written_rate = _written_rate(encoding, int(sample_rate))
    resampler = None if written_rate == sample_rate else soxr.ResampleStream(sample_rate, written_rate, 1)
    with atomic_write(path, "wb") as file:
        sink = _Sink(file)
        with _opened(sink, written_rate, container, encoding, name) as sound_file:
            writer = AudioWriter(sound_file, sink, name, resampler)
            yield writer
            writer.finish()
        sink.raise_error()  # closing writes the header and what the encoder still held
        if writer.num_samples == 0:
            raise AudioError(name, "not written: there are no samples to write (0 s of audio)")


@contextlib.contextmanager
def open_audio_pipe(file: IO[bytes], sample_rate: int, *, is_live: bool = False) -> Iterator[AudioWriter]:
    """Writes WAV of 16 bit, one channel, into what cannot be gone back in, such as stdout.

    Args:
        file: where the bytes go; it stays open.
        sample_rate: Hz.
        is_live: every block goes out at once, behind a header that says that the length is not known. Else all of it
            goes out when the block ends well, behind a header with the length.

    Raises:
        AudioError: nothing was written.
        OSError: the reader of the pipe is gone.
    """
    name = "<pipe>"
    if is_live:
        writer = AudioWriter(WavPipe(file, sample_rate), None, name)
        yield writer
        writer.finish()
    else:
        buffer = io.BytesIO()
        with _opened(_Sink(buffer), sample_rate, "WAV", "PCM_16", name) as sound_file:
            writer = AudioWriter(sound_file, None, name)
            yield writer
            writer.finish()
        if writer.num_samples:
            file.write(buffer.getbuffer())
            file.flush()
    if writer.num_samples == 0:
        raise AudioError(name, "not written: there are no samples to write (0 s of audio)")


def save_audio(path: str | os.PathLike[str], waveform: Tensor | np.ndarray, sample_rate: int) -> None:
    """Writes one waveform; `open_audio_output` tells about formats, clipping and errors.

    Args:
        path: as for `open_audio_output`; an older file is replaced in one step.
        waveform: floats in [-1, 1], ``[N]`` or ``[1, N]``, N >= 1, on any device.
        sample_rate: Hz.

    Raises:
        AudioError: see `open_audio_output` and `AudioWriter.write`.
        ValueError: not floats, not one channel, or a bad sample rate.
    """
    samples = _checked_samples(waveform)
    with open_audio_output(path, sample_rate) as writer:
        writer.write(samples)


def check_output_path(path: str | os.PathLike[str]) -> None:
    """Refuses, before any work is done, a path that `save_audio` would refuse for its extension.

    Raises:
        AudioError: the extension is none of `OUTPUT_FORMATS`.
    """
    _output_format(os.fspath(path))


def _output_format(name: str) -> tuple[str, str]:
    extension = Path(name).suffix.lower()
    if extension not in OUTPUT_FORMATS:
        raise AudioError(name, f"ends in {extension!r}; name the file {', '.join(OUTPUT_FORMATS)} to choose its format")
    return OUTPUT_FORMATS[extension]


def _written_rate(encoding: str, sample_rate: int) -> int:
    """The lowest rate in Hz that an encoding knows and that keeps all of the sound; the given one if there is none."""
    return min((rate for rate in OUTPUT_RATES.get(encoding, ()) if rate >= sample_rate), default=sample_rate)


def _opened(sink: _Sink, sample_rate: int, container: str, encoding: str, name: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(sink, "w", sample_rate, 1, subtype=encoding, format=container)
    except soundfile.LibsndfileError as error:
        raise AudioError(name, f"cannot be written as {container} at {sample_rate} Hz: {error.error_string}") from error


def _checked_samples(waveform: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(waveform, Tensor):
        # NumPy knows no bfloat16; integers stay what they are, to be refused below.
        waveform = waveform.detach().cpu()
        waveform = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
    samples = np.asarray(waveform)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"waveform is {samples.dtype}; give floats in [-1, 1]")
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise ValueError(f"waveform has shape {list(samples.shape)}; give one channel, [N] or [1, N]")
    return samples


def wav_bytes(waveform: Tensor, sample_rate: int) -> bytes:
    """A waveform, float ``[N]`` in [-1, 1], as the bytes of a WAV file of 16 bit."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.numpy(), sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def wav_file(audio: str | bytes | os.PathLike[str], mono: Mono | None = None) -> bytes:
    """A recording as a WAV file: as it is if it is a plain one; else one channel of 16 bit at its rate.

    Args:
        audio: path, or the bytes of an audio file of any format.
        mono: which channel there is, "first" or the "mean" of all. None: a plain WAV file keeps all of its channels,
            others become their mean.

    Raises:
        AudioError: if it cannot be decoded.
    """
    info = probe_audio(audio)
    if info.format in _PLAIN_WAV and (mono is None or info.num_channels == 1):
        return audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    waveform, sample_rate = load_audio(audio, mono=mono or "mean")
    return wav_bytes(waveform, sample_rate)
