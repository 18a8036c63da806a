"""The body of Vocos (Siuzdak, 2023, arXiv:2306.00814): ConvNeXt blocks that keep the frame rate, for an iSTFT head."""
# Shapes: B clips, T frames, D input size, C feature size.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # of all its layer norms


class AdaptiveLayerNorm(nn.Module):
    """Layer norm whose scale and shift are those of one of several conditions, such as a bandwidth."""

    def __init__(self, num_conditions: int, size: int) -> None:
        super().__init__()
        self.scale = nn.Embedding(num_conditions, size)
        self.shift = nn.Embedding(num_conditions, size)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features_BTC: Tensor, condition_B: Tensor) -> Tensor:
        """``condition_B``: int64 ``[B]``, or ``[1]`` for all clips."""
        normed_BTC = F.layer_norm(features_BTC, features_BTC.shape[-1:], eps=EPSILON)
        return normed_BTC * self.scale(condition_B)[:, None] + self.shift(condition_B)[:, None]


class PlainLayerNorm(nn.LayerNorm):
    """Layer norm that takes a condition and has none."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=EPSILON)

    def forward(self, features_BTC: Tensor, condition_B: Tensor | None = None) -> Tensor:
        return super().forward(features_BTC)


def layer_norm(size: int, num_conditions: int | None) -> nn.Module:
    """One that takes a condition in any case."""
    return PlainLayerNorm(size) if num_conditions is None else AdaptiveLayerNorm(num_conditions, size)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution over time and two layers per frame (Liu et al., 2022, arXiv:2201.03545).

    Args:
        size: C.
        intermediate_size: between the two layers.
        num_conditions: of the layer norm; None: it has none.
        layer_scale: where ``gamma``, the weight of what the block adds, starts.
    """

    def __init__(self, size: int, intermediate_size: int, num_conditions: int | None, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(size, size, kernel_size=7, padding=3, groups=size)
        self.norm = layer_norm(size, num_conditions)
        self.pwconv1 = nn.Linear(size, intermediate_size)
        self.pwconv2 = nn.Linear(intermediate_size, size)
        self.gamma = nn.Parameter(torch.full((size,), layer_scale))

    def forward(self, features_BCT: Tensor, condition_B: Tensor | None) -> Tensor:
        mixed_BTC = self.norm(self.dwconv(features_BCT).transpose(1, 2), condition_B)
        added_BTC = self.gamma * self.pwconv2(F.gelu(self.pwconv1(mixed_BTC)))
        return features_BCT + added_BTC.transpose(1, 2)


class VocosBackbone(nn.Module):
    """Features ``[B, D, T]`` to features ``[B, T, C]``.

    Args:
        input_size: D.
        size: C.
        intermediate_size: inside the blocks.
        num_layers: blocks.
        num_conditions: of adaptive layer norms; None: plain ones.
        pos_net: layers ``[B, C, T]`` to the same between the first convolution and its norm; None: none.
    """

    def __init__(
        self,
        input_size: int,
        size: int,
        intermediate_size: int,
        num_layers: int,
        *,
        num_conditions: int | None = None,
        pos_net: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_conditions = num_conditions
        self.embed = nn.Conv1d(input_size, size, kernel_size=7, padding=3)
        self.pos_net = pos_net
        self.norm = layer_norm(size, num_conditions)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(size, intermediate_size, num_conditions, 1 / num_layers) for _ in range(num_layers)
        )
        self.final_layer_norm = PlainLayerNorm(size)

    def forward(self, features_BDT: Tensor, condition_B: Tensor | None = None) -> Tensor:
        features_BCT = self.embed(features_BDT)
        if self.pos_net is not None:
            features_BCT = self.pos_net(features_BCT)
        features_BCT = self.norm(features_BCT.transpose(1, 2), condition_B).transpose(1, 2)
        for block in self.convnext:
            features_BCT = block(features_BCT, condition_B)
        normed: Tensor = self.final_layer_norm(features_BCT.transpose(1, 2))
        return normed
