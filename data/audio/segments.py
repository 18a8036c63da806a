"""Parts of a recording, in seconds: which samples they are, and whether the recording has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .sources import AudioError

ROUNDING_SAMPLES = 1  # how far a segment may reach past the end: seconds are rounded where they are written
MOST_SECONDS = 1e12  # far beyond any recording, and within the range of every number that is made of it


@dataclass(frozen=True)
class Segment:
    """The part of a recording that is read: from ``offset`` seconds on, for ``duration`` seconds or to the end.

    Raises:
        ValueError: a negative, infinite or undefined number of seconds.
    """

    offset: float = 0.0
    duration: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.offset) and self.offset >= 0):
            raise ValueError(f"offset={self.offset}: use the second at which the segment starts, 0 or more")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise ValueError(
                f"duration={self.duration}: use a positive number of seconds, or None for all that follows"
            )

    def first_sample(self, sample_rate: int) -> int:
        return round(min(self.offset, MOST_SECONDS) * sample_rate)

    def end_sample(self, sample_rate: int) -> int | None:
        """One past the last sample; ``None``: the end of the recording, wherever that is."""
        if self.duration is None:
            return None
        return self.first_sample(sample_rate) + max(1, round(min(self.duration, MOST_SECONDS) * sample_rate))

    def num_samples(self, in_recording: int, sample_rate: int, name: str) -> int:
        """How many samples the segment has.

        Args:
            in_recording: samples of the whole recording.
            sample_rate: its rate in Hz.
            name: what an error calls it.

        Raises:
            AudioError: the recording ends before the segment does.
        """
        first, end = self.first_sample(sample_rate), self.end_sample(sample_rate)
        if in_recording <= first or (end is not None and in_recording < end - ROUNDING_SAMPLES):
            to = "to its end" if self.duration is None else f"to {self.offset + self.duration:.10g} s"
            raise AudioError(
                name,
                f"lasts {in_recording / sample_rate:.6g} s, but a segment from {self.offset:.10g} s {to} is asked for",
            )
        return (in_recording if end is None else min(end, in_recording)) - first
