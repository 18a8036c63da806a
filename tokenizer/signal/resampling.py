"""Windowed-sinc resampling (Hann window, width 6, roll-off 0.99), in blocks of any size, on any device.

The released tokenizer is used with this very filter (the defaults of ``torchaudio.transforms.Resample``), so codes
depend on it. That, and streams on the device of the model, is why it stands beside soxr, with which the rest of the
package resamples: better filters, but other ones, and on the CPU only.
"""
# Shapes: N input samples, Q frames of `from_rate / gcd` input and P = `to_rate / gcd` output samples, K taps.

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FILTER_WIDTH = 6  # zero crossings on either side
ROLL_OFF = 0.99  # cut-off as a share of the lower Nyquist frequency
MAX_DENSE_TAPS = 2**22  # a larger filter bank (awkward rate pairs such as 44101 → 16000) is kept sparse
MAX_WINDOW_CELLS = 2**22  # samples gathered at once by the sparse form
BLOCK_SECONDS = 30
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 768_000  # Hz; beyond these a rate is surely a mistake


class Resampler:
    """Resamples a stream: the concatenation of all `push` results and `finish` is the whole resampled.

    Args:
        from_rate: rate of the input in Hz.
        to_rate: rate of the output in Hz.

    Raises:
        ValueError: if a rate is not a whole number of Hz between 1 kHz and 768 kHz.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        from_rate, to_rate = check_sample_rate(from_rate), check_sample_rate(to_rate)
        divisor = math.gcd(from_rate, to_rate)
        self.step, self.phases = from_rate // divisor, to_rate // divisor
        cutoff = min(self.step, self.phases) * ROLL_OFF
        self.half_width = math.ceil(FILTER_WIDTH * self.step / cutoff)
        self.window = self.step + 2 * self.half_width  # input samples that one frame of output needs
        self.is_dense = self.phases * self.window <= MAX_DENSE_TAPS
        self._filters: Tensor | None = None  # [P, window] dense, else [P, K]
        self._pending: Tensor | None = None
        self._num_in = self._num_out = 0

    def push(self, waveform_N: Tensor) -> Tensor:
        """Takes the next block (float32, ``[N]``, N may be 0) and returns all output that is certain by now."""
        if self.step == self.phases:
            return waveform_N
        if self._pending is None:
            self._pending = waveform_N.new_zeros(self.half_width)  # silence in front, on which the first filters reach
        self._num_in += len(waveform_N)
        self._pending = torch.cat([self._pending, waveform_N])
        return self._drain()

    def finish(self) -> Tensor:
        """Ends the stream and returns the rest; the whole has ceil(N · to_rate / from_rate) samples."""
        if self._pending is None:
            return torch.zeros(0)
        total = -(-self._num_in * self.phases // self.step)
        missing = total - self._num_out
        num_frames = -(-missing // self.phases)
        needed = (num_frames - 1) * self.step + self.window if num_frames else 0
        self._pending = F.pad(self._pending, (0, max(0, needed - len(self._pending))))
        rest = self._drain()[:missing]
        self._pending = None
        self._num_in = self._num_out = 0
        return rest

    def _drain(self) -> Tensor:
        assert self._pending is not None
        num_frames = max(0, (len(self._pending) - self.window) // self.step + 1)
        if num_frames == 0:
            return self._pending.new_zeros(0)
        if self._filters is None:
            build = dense_filters if self.is_dense else sparse_filters
            self._filters = build(self.step, self.phases, self.half_width).to(self._pending.device)
        if self.is_dense:
            windows_QN = self._pending.unfold(0, self.window, self.step)[:num_frames]
            output = (windows_QN @ self._filters.t()).flatten()
        else:
            output = self._filter_sparsely(num_frames)
        self._pending = self._pending[num_frames * self.step :]
        self._num_out += len(output)
        return output

    def _filter_sparsely(self, num_frames: int) -> Tensor:
        """Filters with [P, K] taps: each output sample reads only the K samples around its own place."""
        assert self._pending is not None
        assert self._filters is not None
        filters_PK, device = self._filters, self._pending.device
        # One sample more than the window: the last tap of the last phase, whose weight is 0, lies behind it.
        windows_NK = F.pad(self._pending, (0, 1)).unfold(0, filters_PK.shape[1], 1)
        starts_P = torch.arange(self.phases, device=device) * self.step // self.phases
        frames_at_once = max(1, MAX_WINDOW_CELLS // filters_PK.numel())
        outputs = []
        for first in range(0, num_frames, frames_at_once):
            frames_Q = torch.arange(first, min(first + frames_at_once, num_frames), device=device)
            windows_QPK = windows_NK[frames_Q[:, None] * self.step + starts_P]
            outputs.append((windows_QPK * filters_PK).sum(dim=-1).flatten())
        return torch.cat(outputs)


def resample(waveform_N: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resamples one clip (float32, ``[N]``) to ``[ceil(N · to_rate / from_rate)]`` on its own device.

    Raises:
        ValueError: for rates as `check_sample_rate` refuses them.
    """
    from_rate, to_rate = check_sample_rate(from_rate), check_sample_rate(to_rate)
    if from_rate == to_rate or not len(waveform_N):
        return waveform_N
    resampler = Resampler(from_rate, to_rate)
    made_M: Tensor | None = None
    start = 0
    # In blocks, because the windows of a whole recording would take as many times its memory as filters overlap; and
    # each at once to its place, because results kept between such windows break the heap into pieces of no use.
    for block in (*waveform_N.split(BLOCK_SECONDS * from_rate), None):
        part = resampler.finish() if block is None else resampler.push(block)
        if made_M is None:
            made_M = part.new_empty(-(-len(waveform_N) * to_rate // from_rate))
        made_M[start : start + len(part)] = part
        start += len(part)
    assert made_M is not None
    assert start == len(made_M)
    return made_M


def check_sample_rate(sample_rate: int) -> int:
    """Returns the rate as an int.

    Raises:
        ValueError: if it is not a whole number of Hz between 1 kHz and 768 kHz.
    """
    is_number = isinstance(sample_rate, int | float) and not isinstance(sample_rate, bool)
    if not is_number or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"sample_rate={sample_rate!r}: give the rate of the waveform in Hz, "
            f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}, such as 16000"
        )
    if sample_rate != int(sample_rate):
        raise ValueError(f"sample_rate={sample_rate!r}: give a whole number of Hz, such as 16000")
    return int(sample_rate)


def dense_filters(step: int, phases: int, half_width: int) -> Tensor:
    """Returns a filter over the whole window for each output phase, float32 ``[P, step + 2 half_width]``."""
    taps = torch.arange(-half_width, half_width + step, dtype=torch.float64)
    return windowed_sinc(taps[None, :], step, phases)


def sparse_filters(step: int, phases: int, half_width: int) -> Tensor:
    """Returns only the taps that are not zero, float32 ``[P, 2 half_width + 2]``; phase p starts at p·step // P."""
    starts_P = torch.arange(phases) * step // phases - half_width
    taps_PK = starts_P[:, None] + torch.arange(2 * half_width + 2)
    return windowed_sinc(taps_PK.double(), step, phases)


def windowed_sinc(taps: Tensor, step: int, phases: int) -> Tensor:
    """Evaluates the filter of each phase at input sample positions ``taps`` (float64, ``[P or 1, K]``)."""
    cutoff = min(step, phases) * ROLL_OFF
    # The phases are float32 on purpose: torchaudio's are, and the error that this makes is part of the filter.
    offsets_P1 = (-torch.arange(phases)[:, None] / phases).float()
    # Clamped to the ends of the Hann taper, where it is zero, so that taps further out need no mask.
    times_PK = ((offsets_P1 + taps / step) * cutoff).clamp(-FILTER_WIDTH, FILTER_WIDTH)
    hann_PK = (times_PK * math.pi / FILTER_WIDTH / 2).cos() ** 2
    return (torch.sinc(times_PK) * hann_PK * (cutoff / step)).float()
