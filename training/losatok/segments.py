"""The segments of a pass, and the noise of their latents."""
# Shapes: N samples at 16 kHz, B segments, T tokens, D latent size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiollm.tokenizer.losatok.configuration import TOKEN_SAMPLES, count_tokens
from audiollm.training.recordings.checked import Recordings
from audiollm.training.recordings.segments import SegmentOrder, cut_segment


@dataclass(frozen=True)
class SegmentPass:
    """The segments of one forward and backward pass."""

    ids: list[str]  # of the recordings that they are from
    waveforms: Tensor  # [B, N] float32
    noise: Tensor  # [B, T, D] float32, standard normal

    def to(self, device: torch.device) -> SegmentPass:
        """A copy on a device."""
        return SegmentPass(self.ids, self.waveforms.to(device), self.noise.to(device))


def segment_order(recordings: Recordings, segment_tokens: int, segments_per_update: int, seed: int) -> SegmentOrder:
    """Where segments are cut out, as pure functions of seed, update and position in it."""
    lengths = [count_tokens(recordings.num_samples(index)) for index in range(len(recordings))]
    return SegmentOrder(lengths, segment_tokens, segments_per_update, seed)


def make_pass(
    recordings: Recordings, order: SegmentOrder, step: int, positions: Sequence[int], latent_size: int
) -> SegmentPass:
    """Cuts segments of an update out of the recordings, and draws their noise."""
    segments = [cut_segment(recordings, order, step, position, TOKEN_SAMPLES) for position in positions]
    return SegmentPass(
        [one.id for one in segments],
        torch.stack([one.waveform for one in segments]),
        torch.stack([torch.randn(order.segment_frames, latent_size, generator=one.generator) for one in segments]),
    )
