"""Waveforms in memory: made of arrays, and resampled."""
# Shapes: N samples, C channels.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from .channels import Mono, checked_mono, checked_samples, one_channel
from .sources import AudioError

# soxr's "HQ" keeps errors below 16-bit rounding. "VHQ", for 24 bits, is slower, and no model hears the difference.
RESAMPLE_QUALITY = "HQ"
MAX_ARRAY_CHANNELS = 64  # more than any recording has: the longer side of a 2-D array is that of the samples


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
    checked_rate(from_rate)
    checked_rate(to_rate)
    samples = np.ascontiguousarray(waveform.detach().cpu().to(torch.float32).numpy())
    blocks = list(resampled_blocks([samples], from_rate, to_rate))
    return torch.from_numpy(np.concatenate(blocks) if blocks else samples[:0].copy())


def checked_rate(sample_rate: int | None) -> int | None:
    """Returns a rate that is asked for.

    Raises:
        ValueError: not a positive whole number.
    """
    if sample_rate is not None and (not isinstance(sample_rate, int) or sample_rate <= 0):
        raise ValueError(f"sample_rate={sample_rate!r}: use a positive whole number of Hz, such as 16000")
    return sample_rate


def resampled_blocks(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Resamples a stream of float32 [n] to ceil(N * to_rate / from_rate) samples in all."""
    resampler = StreamResampler(from_rate, to_rate)
    for block in blocks:
        resampled = resampler.write(block)
        if len(resampled):
            yield resampled
    tail = resampler.finish()
    if len(tail):
        yield tail


class StreamResampler:
    """Resamples what comes piece by piece; the pieces joined are what `resample` gives, sample for sample.

    Args:
        from_rate: Hz of what comes.
        to_rate: Hz of what is given.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._from_rate, self._to_rate = from_rate, to_rate
        self._resampler = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality=RESAMPLE_QUALITY)
        self._num_in = self._num_out = 0

    def write(self, block: np.ndarray) -> np.ndarray:
        """Takes float32 [n], gives what is ready of the result: float32 [m], m >= 0."""
        self._num_in += len(block)
        resampled = self._resampler.resample_chunk(block)
        self._num_out += len(resampled)
        return resampled

    def finish(self) -> np.ndarray:
        """Gives the rest, float32 [m], m >= 0, so that there are ceil(N * to_rate / from_rate) samples in all."""
        # soxr rounds the length, which leaves nothing of a single sample at 44.1 kHz. The signal is zero after its end,
        # so a few zeros more give the last sample of the ceiling and change none before it.
        zeros = np.zeros(-(-self._from_rate // self._to_rate) + 1, dtype=np.float32)
        num_left = -(-self._num_in * self._to_rate // self._from_rate) - self._num_out
        return self._resampler.resample_chunk(zeros, last=True)[:num_left]


def waveform_from_array(array: Any, mono: Mono = "mean", *, name: str = "<array>") -> Tensor:
    """Makes a waveform of samples that are in memory already.

    Args:
        array: ``[N]``, ``[C, N]`` or ``[N, C]``: NumPy array, tensor (bfloat16 too) or list. Of two dimensions, the one
            above 64 is N; where both are below, the first one is C. Integers are scaled by their type's range (a list
            of integers has no such range and is refused).
        mono: as for `load_audio`.
        name: what an error calls it.

    Returns:
        float32 ``[N]``, N >= 1.

    Raises:
        AudioError: wrong shape or type, no samples; NaN, infinite or immensely loud samples.
    """
    checked_mono(mono)
    has_range = isinstance(array, (np.ndarray, Tensor))
    samples = channels_first(numpy_samples(array, name), name)
    if samples.dtype.kind in "iu" and has_range:
        limits = np.iinfo(samples.dtype)
        half_range = (int(limits.max) - int(limits.min) + 1) // 2
        middle = half_range if samples.dtype.kind == "u" else 0
        # float64 on purpose: float32 has 24 significant bits and would round 32-bit samples before they are centred.
        samples = ((samples.astype(np.float64) - middle) / half_range).astype(np.float32)
    elif samples.dtype.kind != "f":
        raise AudioError(name, f"has samples of type {samples.dtype}; give floats in [-1, 1] or an integer array")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        channels = samples.astype(np.float32).T
    if not channels.size:
        raise AudioError(name, "holds no samples (0 s of audio)")
    return torch.from_numpy(checked_samples(one_channel(channels, mono), 0, None, name))


def channels_first(samples: np.ndarray, name: str = "<array>") -> np.ndarray:
    """Samples ``[N]``, ``[C, N]`` or ``[N, C]`` as ``[C, N]``; see `waveform_from_array`.

    Raises:
        AudioError: another number of dimensions, or too many channels either way round.
    """
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and min(samples.shape) > MAX_ARRAY_CHANNELS):
        raise AudioError(
            name, f"has shape {list(samples.shape)}; give one recording: samples [N], or with channels [C, N] or [N, C]"
        )
    if samples.ndim == 2 and samples.shape[0] > MAX_ARRAY_CHANNELS:
        return samples.T
    return np.atleast_2d(samples)


def numpy_samples(array: Any, name: str = "<array>") -> np.ndarray:
    """Samples as NumPy holds them, of the same shape; its missing types (bfloat16) become float32.

    Raises:
        AudioError: a list that is no array.
    """
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        # NumPy has no type for bfloat16 or the 8-bit floats; float32 holds every value of theirs.
        return (array.float() if array.is_floating_point() and array.dtype != torch.float64 else array).numpy()
    try:
        samples = np.asarray(array)
    except ValueError as error:  # a list of lists of different lengths
        raise AudioError(name, f"is no array of samples: {error}") from error
    # The small floats that packages add to NumPy (bfloat16 of ml_dtypes) are of kind "V".
    return samples.astype(np.float32) if samples.dtype.name.startswith(("bfloat16", "float8")) else samples
