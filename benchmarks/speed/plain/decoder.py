"""Codes to waveform without any care for speed: what the published decoder does, on copies of a model's weights."""
# Shapes: T codes, M mel frames, N samples, H overtones, C mel bins, Q mel frames of the history.

from __future__ import annotations

import torch
from torch import Tensor

from audiollm.tokenizer.decoder.inputs import DEFAULT_SEED
from audiollm.tokenizer.decoder.model import WaveformDecoder

from .flow import PlainFlow
from .vocoder import PlainVocoder


class PlainDecoder:
    """The same arithmetic as a decoder's, on copies of its weights."""

    def __init__(self, decoder: WaveformDecoder) -> None:
        self.config = decoder.config
        self.num_frames = decoder.flow.num_mel_frames
        self.flow = PlainFlow(decoder.flow)
        self.vocoder = PlainVocoder(decoder.vocoder)

    def decode(self, codes_T: Tensor, steps: int, seed: int = DEFAULT_SEED) -> Tensor:
        """Decodes one clip, ``[N]``; the same draws as `WaveformDecoder.decode`."""
        generator = torch.Generator().manual_seed(seed)
        noise_CM = torch.randn(self.config.mel.num_mels, self.num_frames(len(codes_T)), generator=generator)
        guidance = self.config.flow.guidance
        return self.vocode(self.flow.mel(codes_T, noise_CM, steps=steps, guidance=guidance), generator)

    def vocode(self, mel_CM: Tensor, generator: torch.Generator) -> Tensor:
        """Vocodes one mel, ``[N]``."""
        harmonics = self.config.vocoder.num_harmonics + 1
        phase_H = torch.rand(harmonics, generator=generator) * (2 * torch.pi) - torch.pi
        phase_H[0] = 0
        noise_HN = torch.randn(harmonics, mel_CM.shape[1] * self.config.vocoder.hop_length, generator=generator)
        return self.vocoder(mel_CM, phase_H, noise_HN)

    def decode_block(self, history_T: Tensor, mel_CQ: Tensor, block_T: Tensor, steps: int) -> Tensor:
        """Decodes the next block of a stream as published: all history is the prompt, and is computed anew."""
        codes_T = torch.cat([history_T, block_T])
        generator = torch.Generator().manual_seed(DEFAULT_SEED)
        noise_CM = torch.randn(self.config.mel.num_mels, self.num_frames(len(codes_T)), generator=generator)
        made = self.flow.mel(codes_T, noise_CM, mel_CQ, steps=steps, guidance=self.config.flow.guidance)
        return self.vocode(made, generator)
