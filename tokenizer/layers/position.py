"""Layers that look at a whole clip before a stack of short convolutions: residual blocks around one attention."""
# Shapes: B clips, T frames, C channels.

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

NUM_GROUPS = 32
EPSILON = 1e-6
DROPOUT = 0.1  # in training


def group_norm(num_channels: int) -> nn.GroupNorm:
    """Over groups of channels and all frames of a clip.

    Raises:
        ValueError: if the channels do not make groups of one size.
    """
    if num_channels % NUM_GROUPS:
        raise ValueError(f"{num_channels} channels do not make {NUM_GROUPS} groups; use a multiple of {NUM_GROUPS}")
    return nn.GroupNorm(NUM_GROUPS, num_channels, eps=EPSILON)


class ResidualBlock(nn.Module):
    """Adds two normed convolutions, ``[B, C, T]`` to the same."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(num_channels)
        self.conv1 = nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=1)
        self.norm2 = group_norm(num_channels)
        self.conv2 = nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=1)

    def forward(self, features_BCT: Tensor) -> Tensor:
        hidden_BCT = self.conv1(F.silu(self.norm1(features_BCT)))
        hidden_BCT = F.dropout(F.silu(self.norm2(hidden_BCT)), DROPOUT, self.training)
        added_BCT: Tensor = self.conv2(hidden_BCT)
        return features_BCT + added_BCT


class AttentionBlock(nn.Module):
    """Adds attention of one head over all frames, ``[B, C, T]`` to the same."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.norm = group_norm(num_channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(num_channels, num_channels, 1) for _ in range(4))

    def forward(self, features_BCT: Tensor) -> Tensor:
        normed_BCT = self.norm(features_BCT)
        # As one head, [B, 1, T, C], for which torch need not hold all T x T scores.
        rows = (layer(normed_BCT).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        seen_BCT = F.scaled_dot_product_attention(*rows)[:, 0].transpose(1, 2)
        added_BCT: Tensor = self.proj_out(seen_BCT)
        return features_BCT + added_BCT


def position_net(num_channels: int) -> nn.Sequential:
    """The layers of WavTokenizer before its ConvNeXt blocks, ``[B, C, T]`` to the same."""
    return nn.Sequential(
        ResidualBlock(num_channels),
        ResidualBlock(num_channels),
        AttentionBlock(num_channels),
        ResidualBlock(num_channels),
        ResidualBlock(num_channels),
        group_norm(num_channels),
    )
