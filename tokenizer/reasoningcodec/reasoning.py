"""The reasoning branch: what Whisper and a music encoder hear, gathered by one learned query every 0.2 s."""
# Shapes: B clips, F frames of 25 Hz, S vectors of 50 Hz, T reasoning codes, Q frames of a code, D feature size.

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiollm.tokenizer.quantizer.projected import ProjectedResidualQuantizer

from .configuration import REASONING, SPEECH_FRAMES, ReasoningCodecConfig
from .transformer import ReasoningBlock

RESTART_BELOW = 0.1


class ReasoningBranch(nn.Module):
    """Features of 5 Hz that a language model is to understand, and their quantizer."""

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.interval = config.query_interval
        self.downsample = nn.Conv1d(config.whisper_size, config.whisper_size, SPEECH_FRAMES, stride=SPEECH_FRAMES)
        self.merge = nn.Linear(config.whisper_size + config.music_size, config.size)
        self.query = nn.Parameter(0.02 * torch.randn(1, config.size))
        self.blocks = nn.ModuleList(ReasoningBlock(config) for _ in range(config.reasoning_layers))
        self.quantizer = ProjectedResidualQuantizer(
            *config.quantizer_sizes(REASONING), config.size, restart_below=RESTART_BELOW
        )

    def forward(self, whisper_BSD: Tensor, semantic_BFD: Tensor) -> Tensor:
        """What is quantized, ``[B, T, D]``.

        Args:
            whisper_BSD: of 50 Hz.
            semantic_BFD: of the music encoder; F is a multiple of Q.
        """
        whisper_BFD = self.downsample(whisper_BSD.transpose(1, 2)).transpose(1, 2)
        frames_BFD = self.merge(torch.cat([whisper_BFD, semantic_BFD], dim=-1))
        return self.picked(self.transformed(self.with_queries(frames_BFD)))

    def with_queries(self, frames_BFD: Tensor) -> Tensor:
        """Puts the query behind every Q frames, ``[B, F + T, D]``."""
        groups_BTQD = frames_BFD.unflatten(1, (-1, self.interval))
        query_BT1D = self.query.to(frames_BFD.dtype).expand(*groups_BTQD.shape[:2], 1, -1)
        return torch.cat([groups_BTQD, query_BT1D], dim=2).flatten(1, 2)

    def transformed(self, frames_BFD: Tensor) -> Tensor:
        """What the blocks make of frames and queries, of the same shape."""
        for block in self.blocks:
            frames_BFD = block(frames_BFD)
        return frames_BFD

    def picked(self, frames_BFD: Tensor) -> Tensor:
        """What became of the queries, ``[B, T, D]``."""
        return frames_BFD[:, self.interval :: self.interval + 1]
