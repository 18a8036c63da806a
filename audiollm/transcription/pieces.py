"""Recordings of any length, cut at their pauses into pieces that a model takes, in memory that does not grow.

The pieces follow each other without a gap or an overlap: nothing of a recording is left out.
"""
# Shapes: N samples, F frames.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .activity import Activity, ActivityMeasure, activity_of, frame_samples, frames_in

LONGEST_SECONDS = 28.0  # a little below the 30 s that Whisper's encoder hears at once
SHORTEST_SECONDS = 1.0  # that the longest piece may be: in less there is no pause to find
# Of the longest time, the last share, in which a piece ends: pieces stay long, and most of 12 s of speech has a pause.
SEARCHED_SHARE = 0.45
PAUSE_SECONDS = 0.2  # a cut lies in the middle of the quietest stretch of this length


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a recording.

    Attributes:
        waveform: float32 ``[N]``.
        start: in seconds from the beginning of the recording.
        end: in seconds, of the first sample behind it.
        is_active: whether anything goes on in it.
    """

    waveform: Tensor
    start: float
    end: float
    is_active: bool


def pieces_of(
    blocks: Iterable[Tensor],
    sample_rate: int,
    *,
    longest_seconds: float = LONGEST_SECONDS,
    pauses: ActivityMeasure = "level",
) -> Iterator[Piece]:
    """Cuts a recording at its pauses.

    A recording that is no longer than ``longest_seconds`` stays whole. Where there is no pause, the cut lies at the
    place that is most like one.

    Args:
        blocks: the recording, float32 ``[n]`` each, such as `audiollm.data.audio.reading.stream_audio` gives them.
        sample_rate: in Hz.
        longest_seconds: no piece is longer.
        pauses: what tells them: "level" for the loudness, "silero" for Silero's voice activity detector.

    Raises:
        ValueError: ``longest_seconds`` below 1 s, or an unknown ``pauses``.
        ImportError: what ``pauses`` needs is missing.
    """
    check_longest(longest_seconds)
    return _pieces(blocks, sample_rate, longest_seconds, activity_of(pauses, sample_rate))


def check_longest(longest_seconds: float) -> None:
    """Refuses a longest piece that is shorter than `SHORTEST_SECONDS`, or no number.

    Raises:
        ValueError: naming it.
    """
    if not SHORTEST_SECONDS <= longest_seconds < float("inf"):
        raise ValueError(
            f"longest_seconds={longest_seconds:g}: pieces take {SHORTEST_SECONDS:g} s or more, such as "
            f"{LONGEST_SECONDS:g}"
        )


def _pieces(blocks: Iterable[Tensor], sample_rate: int, longest_seconds: float, activity: Activity) -> Iterator[Piece]:
    frame, longest_samples = frame_samples(sample_rate), int(longest_seconds * sample_rate)
    longest = longest_samples // frame  # in whole frames, at whose ends the cuts lie
    first_cut = round(longest * (1 - SEARCHED_SHARE))
    held, scores, start = _Samples(), np.empty(0, np.float32), 0
    for block, is_last in _with_last(blocks):
        held.add(block)
        scores = np.concatenate([scores, activity.scores(block, is_last)])
        while len(held) > longest_samples and len(scores) >= longest:
            cut = first_cut + _quietest(scores[first_cut:longest])
            yield _piece(held.take(cut * frame), start, sample_rate, scores[:cut], activity)
            start, scores = start + cut * frame, scores[cut:]
    if len(held):
        yield _piece(held.take(len(held)), start, sample_rate, scores, activity)


def _with_last(blocks: Iterable[Tensor]) -> Iterator[tuple[np.ndarray, bool]]:
    """Blocks, and whether they are the last one."""
    previous: np.ndarray | None = None
    for block in blocks:
        if previous is not None:
            yield previous, False
        previous = block.numpy()
    if previous is not None:
        yield previous, True


def _piece(waveform: np.ndarray, start: int, sample_rate: int, scores: np.ndarray, activity: Activity) -> Piece:
    end = start + len(waveform)
    is_active = bool((scores >= activity.threshold).any())
    return Piece(torch.from_numpy(waveform), start / sample_rate, end / sample_rate, is_active)


def _quietest(scores_F: np.ndarray) -> int:
    """The middle of the quietest stretch, counted in frames: in [1, F]; of several that are equal, the last one."""
    width = min(frames_in(PAUSE_SECONDS), len(scores_F))
    sums = np.convolve(scores_F.astype(np.float64), np.ones(width), mode="valid")
    last = len(sums) - 1 - int(np.argmin(sums[::-1]))
    return last + (width + 1) // 2


class _Samples:
    """Samples in order, of which the first ones are taken."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, block: np.ndarray) -> None:
        self._blocks.append(block)
        self._length += len(block)

    def take(self, num_samples: int) -> np.ndarray:
        samples = np.concatenate(self._blocks)
        self._blocks, self._length = [samples[num_samples:].copy()], self._length - num_samples
        return samples[:num_samples]
