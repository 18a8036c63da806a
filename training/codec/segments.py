"""The segments of a pass."""
# Shapes: B segments, N samples.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiollm.training.recordings.checked import Recordings
from audiollm.training.recordings.segments import SegmentOrder, cut_segment


@dataclass(frozen=True)
class CodecPass:
    """The segments of one forward and backward pass."""

    ids: list[str]  # of the recordings that they are from
    positions: Tensor  # [B] int64, place of each segment in the update
    waveform: Tensor  # [B, N] float32

    def to(self, device: torch.device) -> CodecPass:
        """A copy on a device."""
        return CodecPass(self.ids, self.positions.to(device), self.waveform.to(device))


def segment_order(
    recordings: Recordings, frame_samples: int, segment_frames: int, segments_per_update: int, seed: int
) -> SegmentOrder:
    """Where segments are cut out; the last frame of a recording is filled up."""
    lengths = [-(-recordings.num_samples(index) // frame_samples) for index in range(len(recordings))]
    return SegmentOrder(lengths, segment_frames, segments_per_update, seed)


def make_pass(
    recordings: Recordings, order: SegmentOrder, step: int, positions: Sequence[int], frame_samples: int
) -> CodecPass:
    """Cuts segments of an update out of the recordings."""
    segments = [cut_segment(recordings, order, step, position, frame_samples) for position in positions]
    return CodecPass(
        [one.id for one in segments], torch.tensor(positions), torch.stack([one.waveform for one in segments])
    )
