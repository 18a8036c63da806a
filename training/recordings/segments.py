"""Where segments are cut out of recordings, and the generators of what is drawn for each."""
# Shapes: N samples.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .checked import Recordings


def clip_generator(*seeds: int) -> torch.Generator:
    """A generator of its own for one clip of one update, so that draws depend neither on processes nor on resuming."""
    mixed = 0
    # 2^64 over the golden ratio spreads neighbouring seeds (Knuth's multiplicative hashing); + 1, so that zeros count.
    for seed in seeds:
        mixed = (mixed * 0x9E3779B97F4A7C15 + seed + 1) % 2**63
    return torch.Generator().manual_seed(mixed)


class SegmentOrder:
    """Where the segments of an update are cut out: a pure function of seed, update and position in it.

    Every frame of the data is as likely as any other, so long clips give more segments.

    Args:
        lengths: frames of each clip.
        segment_frames: frames of a segment.
        segments_per_update: over all processes.
        seed: of the run.

    Raises:
        ValueError: if there are no clips.
    """

    def __init__(self, lengths: Sequence[int], segment_frames: int, segments_per_update: int, seed: int) -> None:
        if not lengths:
            raise ValueError("the training data holds no clips")
        self.segment_frames = segment_frames
        self.segments_per_update = segments_per_update
        self._lengths = lengths
        self._ends = np.cumsum(lengths)
        self._seed = seed

    def segment(self, step: int, position: int) -> tuple[int, int, torch.Generator]:
        """Clip and first frame of a segment, and a generator for whatever else is random of it."""
        generator = clip_generator(self._seed, step, position)
        # A frame of all the data chooses the clip, by its length; the segment then lies anywhere in it.
        frame = int(torch.randint(int(self._ends[-1]), (), generator=generator))
        clip = int(np.searchsorted(self._ends, frame, side="right"))
        latest = max(0, self._lengths[clip] - self.segment_frames)
        return clip, int(torch.randint(latest + 1, (), generator=generator)), generator

    def epoch(self, step: int) -> float:
        """How often an average frame has been trained on after an update."""
        return step * self.segments_per_update * self.segment_frames / float(self._ends[-1])

    def num_updates(self, num_epochs: float) -> int:
        """Updates until an average frame has been trained on so often, at least 1."""
        return max(1, math.ceil(num_epochs / self.epoch(1)))


@dataclass(frozen=True)
class Segment:
    """What was cut out of a recording."""

    id: str  # of the recording
    waveform: Tensor  # [N] float32
    generator: torch.Generator  # for whatever else is random of it


def cut_segment(recordings: Recordings, order: SegmentOrder, step: int, position: int, frame_samples: int) -> Segment:
    """Cuts a segment of an update out of a recording, with silence behind the recording's end.

    Args:
        recordings: whose frames the order counts.
        order: where segments are.
        step: the update.
        position: which segment of it.
        frame_samples: samples of a frame.

    Raises:
        DataError: if the recording can no longer be read.
    """
    clip, first, generator = order.segment(step, position)
    num_samples = order.segment_frames * frame_samples
    waveform = recordings.waveform(clip)[first * frame_samples :][:num_samples]
    return Segment(recordings.id(clip), F.pad(waveform, (0, num_samples - len(waveform))), generator)
