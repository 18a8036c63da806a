"""SemBo, the semantic bottleneck: a frozen teacher's features made small, so that what is alike in time stays alike."""
# Shapes: B clips, T frames, E size of the teacher's features, D latent size.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration import SemanticConfig

RECONSTRUCTION_WEIGHT = 1000.0
"""Of the reconstruction beside the time relation, in the paper; the released helper adds them as they are."""


class SemanticBottleneck(nn.Module):
    """Two layers that make features small, and two that restore them."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        high, between, low = config.feature_size, config.bottleneck_size, config.latent_size
        self.compress = nn.Sequential(nn.Linear(high, between), nn.GELU(), nn.Linear(between, low))
        self.restore = nn.Sequential(nn.Linear(low, between), nn.GELU(), nn.Linear(between, high))

    def forward(self, high_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns small features ``[B, T, D]`` and restored ones ``[B, T, E]``."""
        low_BTD: Tensor = self.compress(high_BTE)
        restored_BTE: Tensor = self.restore(low_BTD)
        return low_BTD, restored_BTE


def reconstruction_loss(restored_BTE: Tensor, high_BTE: Tensor) -> Tensor:
    """Mean squared difference of directions, over all numbers; no gradient to the teacher's side."""
    made = F.normalize(restored_BTE.float(), dim=-1)
    return F.mse_loss(made, F.normalize(high_BTE.detach().float(), dim=-1))


def relation_loss(low_BTD: Tensor, high_BTE: Tensor) -> Tensor:
    """Time-relation loss: mean squared difference of the cosines between all pairs of a clip's frames, ``[T, T]``."""
    return F.mse_loss(_cosines(low_BTD), _cosines(high_BTE.detach()))


def _cosines(features_BTE: Tensor) -> Tensor:
    directions_BTE = F.normalize(features_BTE.float(), dim=-1)
    with torch.autocast(features_BTE.device.type, enabled=False):
        return directions_BTE @ directions_BTE.transpose(1, 2)
