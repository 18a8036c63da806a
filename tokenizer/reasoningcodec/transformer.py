"""The transformer of the reasoning branch: blocks without norms before them, whose additions are scaled instead."""
# Shapes: B clips, T frames, H heads, D feature size.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiollm.tokenizer.layers.rotary import rotary_angles, rotate

from .configuration import ReasoningCodecConfig

FIRST_SCALE = 0.01
"""Of what a fresh block adds."""


class Attention(nn.Module):
    """Of all frames to all, queries and keys normed by head, ``[B, T, D]`` to the same."""

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        size, head_size = config.size, config.reasoning_head_size
        self.num_heads = size // head_size
        self.rotary_channels = config.rotary_channels
        self.qkv = weight_norm(nn.Linear(size, 3 * size, bias=False), dim=0)
        self.out = weight_norm(nn.Linear(size, size, bias=False), dim=0)
        self.q_norm = nn.LayerNorm(head_size)
        self.k_norm = nn.LayerNorm(head_size)

    def forward(self, features_BTD: Tensor) -> Tensor:
        q, k, v = self.qkv(features_BTD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self._placed(self.q_norm(q)), self._placed(self.k_norm(k))
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed

    def _placed(self, heads_BHTC: Tensor) -> Tensor:
        """Turns the first channels of each head by their frame's place."""
        count = self.rotary_channels
        angles = rotary_angles(heads_BHTC.shape[2], count, heads_BHTC.device)
        return torch.cat([rotate(heads_BHTC[..., :count], angles), heads_BHTC[..., count:]], dim=-1)


class FeedForward(nn.Module):
    """Two layers for each frame, the first one with a gate, ``[B, T, D]`` to the same."""

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.inner = weight_norm(nn.Linear(config.size, 2 * config.reasoning_inner_size), dim=0)
        self.outer = weight_norm(nn.Linear(config.reasoning_inner_size, config.size), dim=0)

    def forward(self, features_BTD: Tensor) -> Tensor:
        made: Tensor = self.outer(F.glu(self.inner(features_BTD), dim=-1))
        return made


class ReasoningBlock(nn.Module):
    """Attention and two layers, each scaled number by number and added to its input."""

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_scale = nn.Parameter(torch.full((config.size,), FIRST_SCALE))
        self.feed = FeedForward(config)
        self.feed_scale = nn.Parameter(torch.full((config.size,), FIRST_SCALE))

    def forward(self, features_BTD: Tensor) -> Tensor:
        features_BTD = features_BTD + self.attention_scale * self.attention(features_BTD)
        return features_BTD + self.feed_scale * self.feed(features_BTD)
