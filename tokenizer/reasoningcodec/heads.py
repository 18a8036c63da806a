"""Heads for training alone: what the codes of a branch say of a frozen encoder's features, at their rate."""
# Shapes: B clips, C channels, T frames.

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

NUM_UNITS = 2
"""Residual units of a stage."""


class ResidualUnit(nn.Module):
    """Adds two convolutions, ``[B, C, T]`` to the same."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(num_channels, num_channels, 3, padding=1, bias=False)
        self.narrow = nn.Conv1d(num_channels, num_channels, 1, bias=False)

    def forward(self, features_BCT: Tensor) -> Tensor:
        added_BCT: Tensor = self.narrow(F.elu(self.wide(F.elu(features_BCT))))
        return features_BCT + added_BCT


class Stage(nn.Module):
    """A convolution, ``[B, C, T]`` to ``[B, C, T * stride]``, and residual units."""

    def __init__(self, num_channels: int, stride: int) -> None:
        super().__init__()
        if stride == 1:
            self.conv = nn.Conv1d(num_channels, num_channels, 3, padding=1)
        else:
            self.deconv = nn.ConvTranspose1d(
                num_channels,
                num_channels,
                2 * stride,
                stride=stride,
                padding=(stride + 1) // 2,
                output_padding=stride % 2,
            )
        self.units = nn.Sequential(*(ResidualUnit(num_channels) for _ in range(NUM_UNITS)))

    def forward(self, features_BCT: Tensor) -> Tensor:
        layer = self.conv if hasattr(self, "conv") else self.deconv
        made: Tensor = self.units(layer(features_BCT))
        return made


class FeatureHead(nn.Module):
    """From de-quantized features to those of a frozen encoder, ``[B, D, T]`` to ``[B, C, T * product of strides]``."""

    def __init__(self, size: int, num_channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Conv1d(size, num_channels, 3, padding=1, bias=False)
        self.stages = nn.Sequential(*(Stage(num_channels, stride) for stride in strides))
        self.last = nn.Conv1d(num_channels, num_channels, 3, padding=1, bias=False)

    def forward(self, features_BDT: Tensor) -> Tensor:
        made: Tensor = self.last(self.stages(self.first(features_BDT)))
        return made
