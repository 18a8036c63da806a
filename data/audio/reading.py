"""Reading of audio files: decode any of them, probe them, stream them in flat memory.

The format is recognised by content, never by the name of the file. libsndfile (through soundfile) reads WAV, FLAC,
Ogg Vorbis, Opus, MP3, AIFF, CAF, AU and more; what it cannot read goes to ffmpeg if that is on the PATH. Everything
that is wrong with a file is an :class:`AudioError` that names the file and the reason.
"""
# Shapes: N samples, C channels.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .opening import AudioError, AudioSource, AudioStream, cleaned_message, open_stream, source_name

Mono = Literal["mean", "first"]

# soxr's "HQ" keeps errors below 16-bit rounding. "VHQ", for 24 bits, is slower, and no model hears the difference.
RESAMPLE_QUALITY = "HQ"
PROBE_BLOCK_SECONDS = 30.0
MAX_ARRAY_CHANNELS = 64  # more than any recording has: a 2-D array with more rows is [N, C], the wrong way round


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
    with open_stream(source, name) as stream:
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
        # float64 on purpose: float32 has 24 significant bits and would round 32-bit samples before they are centred.
        samples = ((samples.astype(np.float64) - middle) / half_range).astype(np.float32)
    elif samples.dtype.kind != "f":
        raise AudioError(name, f"has samples of type {samples.dtype}; give floats in [-1, 1] or an integer array")
    channels = np.atleast_2d(samples.astype(np.float32)).T
    if not channels.size:
        raise AudioError(name, "holds no samples (0 s of audio)")
    return torch.from_numpy(_finite(_one_channel(channels, mono), 0, None, name))


def _checked_rate(sample_rate: int | None) -> int | None:
    if sample_rate is not None and (not isinstance(sample_rate, int) or sample_rate <= 0):
        raise ValueError(f"sample_rate={sample_rate!r}: use a positive whole number of Hz, such as 16000")
    return sample_rate


def _checked_mono(mono: str) -> str:
    if mono not in ("mean", "first"):
        raise ValueError(f'mono={mono!r}: use "mean" (average of the channels) or "first" (the first channel)')
    return mono


# --- from a source to blocks of one channel ---------------------------------------------------------------------------


def _waveform_blocks(
    source: AudioSource, sample_rate: int | None, mono: str, block_seconds: float, rate_seen: list[int]
) -> Iterator[np.ndarray]:
    """Yields float32 [n] blocks, n >= 1; appends the recording's own rate to ``rate_seen``."""
    name = source_name(source)
    with open_stream(source, name) as stream:
        rate_seen.append(stream.sample_rate)
        channels = _decoded_blocks(stream, name, block_seconds)
        blocks = _checked_blocks(channels, stream.sample_rate, mono, name)
        if sample_rate is not None and sample_rate != stream.sample_rate:
            blocks = _resampled(blocks, stream.sample_rate, sample_rate)
        yield from blocks


def _decoded_blocks(stream: AudioStream, name: str, block_seconds: float) -> Iterator[np.ndarray]:
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
            raise AudioError(name, f"{reason}: {cleaned_message(error.error_string)}") from error
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
    # The mean and not the sum: two equal channels stay at their level, and full scale is not exceeded.
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
