"""Segments of an update, and what is drawn for each: what is given, what is left out, noise and time of the flow.

All of it is drawn from a generator of the segment's own, so it depends neither on processes, passes nor resuming.
"""
# Shapes: B segments, N samples, F latents, T reconstruction codes, L latent size.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiollm.tokenizer.reasoningcodec.configuration import (
    FRAME_SAMPLES,
    RECONSTRUCTION_FRAMES,
    ReasoningCodecConfig,
)
from audiollm.tokenizer.reasoningcodec.flow import GIVEN, PADDING, WANTED, frame_weights
from audiollm.training.decoder.base import even_times
from audiollm.training.recordings.checked import Recordings
from audiollm.training.recordings.segments import SegmentOrder, cut_segment

from ..reconstruction_settings import ReconstructionSettings


@dataclass(frozen=True)
class SegmentDraw:
    """What is drawn for a segment, but for its noise."""

    num_frames: int  # of 25 Hz that are sound; those behind are silence
    num_given: int  # of the first latents
    hears_reasoning: bool  # whether the reasoning codes have a say
    has_condition: bool  # whether the codes have


@dataclass(frozen=True)
class UpdateTotals:
    """Of all segments of an update, what the losses are means over."""

    flow_weight: float  # of all latents, see `frame_weights`
    num_codes: int
    num_frames: int


@dataclass(frozen=True)
class ReconstructionPass:
    """The segments of one forward and backward pass."""

    ids: list[str]  # of the recordings that they are from
    draws: list[SegmentDraw]
    positions: Tensor  # [B] int64, place of each in the update
    waveforms: Tensor  # [B, N] float32
    noise: Tensor  # [B, F, L] float32
    times: Tensor  # [B] float32
    num_frames: Tensor  # [B] int64
    mask: Tensor  # [B, F] int64: PADDING, GIVEN or WANTED
    hears_reasoning: Tensor  # [B] bool
    has_condition: Tensor  # [B] bool

    @property
    def totals(self) -> UpdateTotals:
        """Of this pass alone."""
        return totals_of(self.draws, self.mask.shape[1])

    def to(self, device: torch.device) -> ReconstructionPass:
        """A copy on a device."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        moved: dict[str, Any] = {n: v.to(device) for n, v in values.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)


@dataclass(frozen=True)
class ReconstructionUpdate:
    """This process's passes of an update."""

    passes: list[ReconstructionPass]
    totals: UpdateTotals


class ReconstructionSegments:
    """Cuts segments out of recordings.

    Args:
        recordings: at 24 kHz.
        sizes: of the codec.
        settings: of the stage.
        segments_per_update: over all processes.
        seed: of the run.

    Raises:
        ValueError: if a segment is longer than the flow's transformer takes.
    """

    def __init__(
        self,
        recordings: Recordings,
        sizes: ReasoningCodecConfig,
        settings: ReconstructionSettings,
        segments_per_update: int,
        seed: int,
    ) -> None:
        self._recordings, self._settings, self._seed = recordings, settings, seed
        self._latent_size = sizes.latent_size
        self._unit = sizes.whole_samples  # after which both groups have whole codes
        units = max(1, round(settings.segment_seconds * recordings.sample_rate / self._unit))
        self.segment_frames = units * self._unit // FRAME_SAMPLES
        if self.segment_frames > sizes.dit_positions:
            raise ValueError(
                f"reconstruction.segment_seconds={settings.segment_seconds:g} has {self.segment_frames} latents, and "
                f"the flow takes {sizes.dit_positions} at once: lower it, or raise reconstruction.dit_positions"
            )
        lengths = [-(-recordings.num_samples(index) // self._unit) for index in range(len(recordings))]
        self.order = SegmentOrder(lengths, units, segments_per_update, seed)

    def draws(self, step: int) -> list[SegmentDraw]:
        """Of all segments of an update."""
        return [self._draw(step, position)[0] for position in range(self.order.segments_per_update)]

    def make_pass(self, step: int, positions: Sequence[int]) -> ReconstructionPass:
        """Cuts segments of an update, and draws their noise."""
        ids, draws, waveforms, noise = [], [], [], []
        for position in positions:
            draw, generator = self._draw(step, position)
            segment = cut_segment(self._recordings, self.order, step, position, self._unit)
            ids.append(segment.id)
            draws.append(draw)
            waveforms.append(segment.waveform)
            noise.append(torch.randn(self.segment_frames, self._latent_size, generator=generator))
        return ReconstructionPass(
            ids=ids,
            draws=draws,
            positions=torch.tensor(list(positions)),
            waveforms=torch.stack(waveforms),
            noise=torch.stack(noise),
            times=torch.tensor(even_times((self._seed, step), positions)),
            num_frames=torch.tensor([one.num_frames for one in draws]),
            mask=torch.stack([mask_of(one, self.segment_frames) for one in draws]),
            hears_reasoning=torch.tensor([one.hears_reasoning for one in draws]),
            has_condition=torch.tensor([one.has_condition for one in draws]),
        )

    def _draw(self, step: int, position: int) -> tuple[SegmentDraw, torch.Generator]:
        clip, first, generator = self.order.segment(step, position)
        left = self._recordings.num_samples(clip) - first * self._unit
        num_frames = min(self.segment_frames, -(-left // FRAME_SAMPLES))
        settings = self._settings
        given, film, condition = torch.rand(3, generator=generator).tolist()
        fewest, most = settings.given_latents
        num_given = int(torch.randint(fewest, most + 1, (), generator=generator))
        draw = SegmentDraw(
            num_frames=num_frames,
            num_given=min(num_given, num_frames // 2) if given < settings.given_share else 0,
            hears_reasoning=film >= settings.film_dropout,
            has_condition=condition >= settings.condition_dropout,
        )
        return draw, generator


def mask_of(draw: SegmentDraw, segment_frames: int) -> Tensor:
    """What each latent of a segment is, int64 ``[F]``."""
    mask_F = torch.full((segment_frames,), PADDING)
    mask_F[: draw.num_frames] = WANTED
    mask_F[: draw.num_given] = GIVEN
    return mask_F


def totals_of(draws: Sequence[SegmentDraw], segment_frames: int) -> UpdateTotals:
    """What the losses of segments are means over."""
    weights = [float(frame_weights(mask_of(one, segment_frames)).sum()) for one in draws]
    return UpdateTotals(
        sum(weights),
        sum(num_codes(one.num_frames) for one in draws),
        sum(one.num_frames for one in draws),
    )


def num_codes(num_frames: int) -> int:
    """Reconstruction codes of so many frames."""
    return -(-num_frames // RECONSTRUCTION_FRAMES)
