"""A decoder's samples on their way into a response: at the response's rate, and faster or slower at the same pitch."""
# Shapes: n samples.

from __future__ import annotations

import math
from typing import Any

import numpy as np

from audiollm.data.audio.waveforms import StreamResampler, checked_rate

from .formats import RESPONSE_RATE
from .pyav import import_pyav

MIN_SPEED, MAX_SPEED = 0.25, 4.0
# libavfilter's atempo gives other samples for other pieces, so it always gets pieces of one size: 21 ms at 24 kHz.
TEMPO_BLOCK_SAMPLES = 512
MAX_STAGE_OCTAVES = 1.0  # one atempo halves or doubles the speed at most: slower it cannot, faster it leaves sound out
# atempo keeps back what it has no room to overlap, up to a window (a 24th of a second, rounded up to a power of two)
# for each of two stages, at their speeds; zeros behind the end bring it out.
FLUSH_SECONDS = 0.5


class SpeedChanger:
    """Changes the speed of speech and keeps its pitch (libavfilter's ``atempo``, by overlapping waveforms), in pieces.

    How the samples come in pieces makes no difference. The result of N samples has round(N / speed).

    Args:
        speed: 0.25 to 4; 2 is twice as fast. At 1 samples pass through untouched, and PyAV is not needed.
        sample_rate: Hz.

    Raises:
        ValueError: a speed outside the range.
        PyAVMissingError: PyAV is needed, and not installed.
    """

    def __init__(self, speed: float, sample_rate: int = RESPONSE_RATE) -> None:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise ValueError(f"speed={speed}: use a number from {MIN_SPEED:g} to {MAX_SPEED:g}")
        self._speed, self._sample_rate = speed, sample_rate
        self._filter = None if speed == 1 else _Tempo(speed, sample_rate)
        self._held = np.zeros(0, np.float32)
        self._num_in = self._num_out = 0

    def write(self, samples: np.ndarray) -> np.ndarray:
        """Takes float32 ``[n]``, n >= 0; gives what is ready, float32 ``[m]``, m >= 0."""
        self._num_in += len(samples)
        if self._filter is None:
            return samples
        return self._limited(self._filtered(samples))

    def close(self) -> np.ndarray:
        """Gives the rest, float32 ``[m]``, m >= 0. Nothing may be written after it."""
        if self._filter is None or not self._num_in:
            return np.zeros(0, np.float32)
        zeros = np.zeros(TEMPO_BLOCK_SAMPLES * math.ceil(FLUSH_SECONDS * self._sample_rate / TEMPO_BLOCK_SAMPLES))
        rest = [self._filtered(zeros.astype(np.float32)), self._filter.finish()]
        return self._limited(np.concatenate(rest))

    def _filtered(self, samples: np.ndarray) -> np.ndarray:
        assert self._filter is not None  # by the callers
        held = np.concatenate([self._held, samples])
        num_whole = len(held) - len(held) % TEMPO_BLOCK_SAMPLES
        self._held = held[num_whole:]
        blocks = held[:num_whole].reshape(-1, TEMPO_BLOCK_SAMPLES)
        return np.concatenate([np.zeros(0, np.float32), *(self._filter.push(block) for block in blocks)])

    def _limited(self, samples: np.ndarray) -> np.ndarray:
        kept = samples[: max(0, round(self._num_in / self._speed) - self._num_out)]
        self._num_out += len(kept)
        return kept


class _Tempo:
    """The filter graph: as many stages as the speed needs, which share it evenly."""

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._av = import_pyav("a speed other than 1")
        self._graph = self._av.filter.Graph()
        self._sample_rate, self._num_samples = sample_rate, 0
        num_stages = max(1, math.ceil(abs(math.log2(speed)) / MAX_STAGE_OCTAVES))
        stages = [self._graph.add("atempo", f"{speed ** (1 / num_stages):.9f}") for _ in range(num_stages)]
        source = self._graph.add_abuffer(sample_rate=sample_rate, format="fltp", layout="mono")
        as_given = self._graph.add("aformat", "sample_fmts=fltp:channel_layouts=mono")
        self._graph.link_nodes(source, *stages, as_given, self._graph.add("abuffersink")).configure()

    def push(self, samples: np.ndarray) -> np.ndarray:
        frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._sample_rate, self._num_samples
        self._num_samples += len(samples)
        return self._pushed(frame)

    def finish(self) -> np.ndarray:
        return self._pushed(None)

    def _pushed(self, frame: Any) -> np.ndarray:
        self._graph.push(frame)
        ready = [np.zeros(0, np.float32)]
        while True:
            try:
                ready.append(self._graph.pull().to_ndarray()[0])
            except (self._av.BlockingIOError, self._av.EOFError):  # nothing more is ready
                return np.concatenate(ready)


class SoundStream:
    """Brings a decoder's samples to the rate of a response, piece by piece, and to a speed.

    At speed 1 the pieces joined are those of `audiollm.data.audio.resample` of the whole, sample for sample.

    Args:
        sample_rate: of what comes, in Hz.
        speed: 0.25 to 4, as for `SpeedChanger`.

    Raises:
        ValueError: a speed outside the range, or a rate that is no positive whole number.
        PyAVMissingError: a speed other than 1 needs PyAV, which is not installed.
    """

    def __init__(self, sample_rate: int, speed: float = 1.0) -> None:
        checked_rate(sample_rate)
        self._resampler = None if sample_rate == RESPONSE_RATE else StreamResampler(sample_rate, RESPONSE_RATE)
        self._speed_changer = SpeedChanger(speed)

    def write(self, samples: np.ndarray) -> np.ndarray:
        """Takes float32 ``[n]``, n >= 0, at the decoder's rate; gives what is ready at `RESPONSE_RATE`, ``[m]``."""
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        return self._speed_changer.write(samples if self._resampler is None else self._resampler.write(samples))

    def close(self) -> np.ndarray:
        """Gives the rest, float32 ``[m]``, m >= 0. Nothing may be written after it."""
        rest = np.zeros(0, np.float32) if self._resampler is None else self._resampler.finish()
        return np.concatenate([self._speed_changer.write(rest), self._speed_changer.close()])
