"""Finite scalar quantization: each of a few numbers is rounded to one of a few levels; the codebook is their grid.

After Mentzer et al., 2023 (arXiv:2309.15505), as CosyVoice2 has it: an odd number of levels around 0.
"""
# Shapes: B batch, T frames, D feature size, C numbers of a code, L levels of each, V codes (L to the power of C).

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiollm.tokenizer.linear import Linear, linear

LIMIT = 0.9990000128746033  # of the outermost level: tanh alone could round beyond it


class FiniteScalarQuantizer(nn.Module):
    """Projects a frame to C numbers in (-1, 1) and rounds each to a level; the first number is the lowest digit.

    Args:
        dim: feature size D.
        num_dims: C.
        num_levels: L, odd.

    Raises:
        ValueError: for an even number of levels.
    """

    def __init__(self, dim: int, num_dims: int = 8, num_levels: int = 3) -> None:
        super().__init__()
        if num_levels < 3 or num_levels % 2 == 0:
            raise ValueError(f"num_levels={num_levels}: use an odd number of at least 3")
        self.num_dims, self.num_levels = num_dims, num_levels
        self.codebook_size = num_levels**num_dims
        self.project_down = Linear(dim, num_dims)

    def extra_repr(self) -> str:
        return f"{self.num_levels} levels, {self.codebook_size} codes"

    def project(self, features_BTD: Tensor) -> Tensor:
        """The numbers of each frame before they are rounded, float32 ``[..., C]``: levels lie at whole ones."""
        # float32 on purpose, also under autocast: what is near the border between two levels must not be rounded twice.
        with torch.autocast(features_BTD.device.type, enabled=False):
            weight, bias = self.project_down.weight.float(), self.project_down.bias.float()
            return linear(features_BTD.float(), weight, bias)

    def bound(self, projected_BTC: Tensor) -> Tensor:
        """Brings what `project` gives into the range of the levels."""
        return projected_BTC.tanh() * (LIMIT * (self.num_levels // 2))

    @torch.no_grad()
    def encode(self, features_BTD: Tensor) -> Tensor:
        """Finds the codes of features ``[..., D]``, int64 ``[...]`` in [0, V)."""
        digits_BTC = self.bound(self.project(features_BTD)).round().long() + self.num_levels // 2
        places_C = self.num_levels ** torch.arange(self.num_dims, device=digits_BTC.device)
        return (digits_BTC * places_C).sum(dim=-1)


def round_to_levels(values: Tensor, steps: int) -> Tensor:
    """Rounds numbers to multiples of 1 / steps, half ones to the even multiple; gradients pass straight through."""
    rounded = (values.detach() * steps).round() / steps
    return rounded + (values - values.detach())  # the rounded numbers to the last bit
