"""Segments that the vocoder is trained on: what is cut out of the clips, and what is drawn for each."""
# Shapes: B segments, C mel bins, M mel frames, N samples, H overtones.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.decoder.vocoder.source import HarmonicSource
from audiollm.tokenizer.signal.mel import MEL_FLOOR
from audiollm.training.decoder.shards import DecoderItems
from audiollm.training.recordings.segments import SegmentOrder


@dataclass(frozen=True)
class VocoderPass:
    """The segments of one forward and backward pass."""

    ids: list[str]  # of the clips that they are from
    mel: Tensor  # [B, C, M] float32, log
    f0: Tensor  # [B, M] float32, Hz; 0 where unvoiced
    waveform: Tensor  # [B, N] float32
    phase: Tensor  # [B, H + 1] float32, radians
    noise: Tensor  # [B, H + 1, N] float32

    def to(self, device: torch.device) -> VocoderPass:
        """A copy on a device."""
        moved = (tensor.to(device) for tensor in (self.mel, self.f0, self.waveform, self.phase, self.noise))
        return VocoderPass(self.ids, *moved)


def make_pass(
    items: DecoderItems, order: SegmentOrder, step: int, positions: list[int], source: HarmonicSource
) -> VocoderPass:
    """Cuts segments of an update out of the clips and draws the random part of their excitation.

    Args:
        items: the clips, with their fundamental frequency.
        order: where the segments are.
        step: the update.
        positions: which segments of it.
        source: knows what an excitation needs.
    """
    segments = [order.segment(step, position) for position in positions]
    cut = [cut_segment(items, clip, first, order.segment_frames) for clip, first, _ in segments]
    mels, f0s, waveforms = zip(*cut, strict=True)
    generators = [generator for _, _, generator in segments]
    return VocoderPass(
        ids=[items.id(clip) for clip, _, _ in segments],
        mel=torch.stack(mels),
        f0=torch.stack(f0s),
        waveform=torch.stack(waveforms),
        phase=source.draw_phase(len(cut), generators),
        noise=source.draw_noise([len(waveform) for waveform in waveforms], generators),
    )


def cut_segment(items: DecoderItems, clip: int, first: int, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Reads mel ``[C, M]``, fundamental ``[M]`` and waveform ``[N]`` of a segment; silence behind a clip's end."""
    hop_length = items.clip_format.mel.hop_length
    mel = items.mel(clip)[:, first : first + num_frames]
    f0 = items.f0(clip)[first : first + num_frames]
    waveform = items.waveform(clip, first * hop_length, (first + mel.shape[1]) * hop_length)
    missing = num_frames - mel.shape[1]
    # Silence as the mel of silence is: a log-mel of zero would be loud.
    return (
        F.pad(mel, (0, missing), value=math.log(MEL_FLOOR)),
        F.pad(f0, (0, missing)),
        F.pad(waveform, (0, missing * hop_length)),
    )
