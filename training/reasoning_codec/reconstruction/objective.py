"""The losses of the last stage as one forward pass: flow, commitment, and heads that read features out of codes."""
# Shapes: B segments, N samples, F frames of 25 Hz, T reconstruction codes, R reasoning codes, D size, L latent size.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiollm.tokenizer.reasoningcodec.configuration import BRANCHES, RECONSTRUCTION_FRAMES
from audiollm.tokenizer.reasoningcodec.flow import GIVEN
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.reasoningcodec.reconstruction import Heard

from ..reconstruction_settings import ReconstructionSettings
from .segments import ReconstructionPass, UpdateTotals

FLOW, COMMITMENT, PHONE, STRUCTURE = "flow", "commitment", "phone", "structure"


@dataclass
class Frozen:
    """What the frozen parts make of a pass."""

    heard: Heard
    reasoning: Tensor  # [B, R, D]: what the reasoning codes say
    latents: Tensor  # [B, F, L] float32: what the flow is to make


class FrozenParts:
    """The frozen encoders, the reasoning branch and the SQCodec of a codec.

    Args:
        codec: with all of them.
    """

    def __init__(self, codec: ReasoningCodec) -> None:
        self._codec = codec

    @torch.no_grad()
    def __call__(self, waveforms_BN: Tensor) -> Frozen:
        """What they say of segments of whole codes, on the codec's device."""
        codec = self._codec
        assert codec.sqcodec is not None
        codec.reasoning.eval()
        heard = codec.hear(waveforms_BN)
        codes_BKR = codec.reasoning.quantizer.encode(codec.reasoning(heard.whisper, heard.semantic))
        return Frozen(
            heard,
            codec.reasoning.quantizer.decode(codes_BKR).to(codec.dtype),
            # As they are before they are rounded: so the published code gives them, and its decoder rounds.
            codec.sqcodec.latents(waveforms_BN).transpose(1, 2).float(),
        )


class ReconstructionObjective(nn.Module):
    """Reconstruction branch, heads and flow, which is what data parallelism and mixed precision wrap.

    Args:
        codec: whose parts these are.
    """

    def __init__(self, codec: ReasoningCodec) -> None:
        super().__init__()
        assert codec.flow is not None
        self.branch, self.heads, self.flow = codec.reconstruction, codec.heads, codec.flow

    def forward(self, frozen: Frozen, one: ReconstructionPass) -> dict[str, Tensor]:
        """Losses of segments, scalars: ``flow``, ``phone``, ``structure``, and in training mode ``commitment``."""
        num_frames = frozen.latents.shape[1]
        num_codes = num_frames // RECONSTRUCTION_FRAMES
        is_sound_BF = torch.arange(num_frames, device=one.num_frames.device) < one.num_frames[:, None]
        # A code counts if any of its frames is sound.
        is_sound_BT = is_sound_BF.unflatten(1, (num_codes, RECONSTRUCTION_FRAMES)).any(dim=2)

        influence_BTD = self.branch.influence(frozen.reasoning, self.branch.tokens_of(0, num_codes))
        features = self.branch.moved(self.branch.features(frozen.heard), influence_BTD, one.hears_reasoning)
        made = self.branch.quantize(features, is_sound_BT, one.positions)
        # What is said as `ReasoningCodec.decode` says it: with the reasoning codes added, or without.
        said_BTD = torch.stack([made[name].quantized for name in BRANCHES]).sum(dim=0)
        said_BTD = said_BTD + influence_BTD * one.hears_reasoning[:, None, None]

        condition_BFD = self.flow.conditions(said_BTD, one.num_frames) * one.has_condition[:, None, None]
        given_BFL = frozen.latents * (one.mask == GIVEN)[:, :, None]
        parts = {
            FLOW: self.flow.loss(frozen.latents, one.noise, one.times, given_BFL, condition_BFD, one.mask),
            PHONE: self._read_out(PHONE, made[PHONE].quantized, frozen.heard.wavlm, is_sound_BF),
            STRUCTURE: self._read_out(STRUCTURE, made[STRUCTURE].quantized, frozen.heard.semantic, is_sound_BF),
        }
        commitments = [made[name].loss for name in BRANCHES]
        if self.training:
            parts[COMMITMENT] = torch.stack([loss for loss in commitments if loss is not None]).sum()
        return parts

    def _read_out(self, head: str, quantized_BTD: Tensor, features_BSD: Tensor, is_sound_BF: Tensor) -> Tensor:
        """Mean squared error of what a head reads out of codes, over what is sound."""
        read_BSD = self.heads[head](quantized_BTD.transpose(1, 2)).transpose(1, 2)
        mask_BS1 = is_sound_BF.repeat_interleave(features_BSD.shape[1] // is_sound_BF.shape[1], dim=1)[:, :, None]
        error = (read_BSD.float() - features_BSD.float()).square() * mask_BS1
        return error.sum() / (mask_BS1.sum() * features_BSD.shape[2])


def weighted_shares(
    settings: ReconstructionSettings, own: UpdateTotals, all_segments: UpdateTotals
) -> dict[str, tuple[float, float]]:
    """For each loss of a pass its weight, and the share that the pass has in the update's mean."""
    codes = own.num_codes / all_segments.num_codes
    frames = own.num_frames / all_segments.num_frames
    return {
        FLOW: (settings.flow_weight, own.flow_weight / all_segments.flow_weight),
        COMMITMENT: (settings.commitment_weight, codes),
        PHONE: (settings.phone_weight, frames),
        STRUCTURE: (settings.structure_weight, frames),
    }
