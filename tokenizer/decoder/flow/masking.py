"""Batches of rows of different lengths: which frames are real, and how padding is treated.

Two treatments:

- ``"hidden"``: padding cannot be noticed. A row gives what it gives alone, so this is what decoding uses.
- ``"reference"``: what the published recipe computes. Its attention mask of ones and zeros is added to the scores, so
  padded frames are only lowered by 1, and they count in the group norms.

Rows without padding give the same numbers both ways.

Shapes: B rows, C channels, M frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

Padding = Literal["hidden", "reference"]


@dataclass(frozen=True)
class FrameMask:
    """Which frames of a batch are real. Modules treat ``None`` in its place as: all of them."""

    is_valid: Tensor
    """1.0 or 0.0, ``[B, 1, M]``, in the dtype of the activations."""
    padding: Padding = "hidden"

    @classmethod
    def make(cls, lengths: Tensor, num_frames: int, like: Tensor, padding: Padding = "hidden") -> FrameMask | None:
        """Builds the mask of right-padded rows, or None if no row is padded.

        Args:
            lengths: valid frames per row, int64 ``[B]``.
            num_frames: width of the batch.
            like: gives the device and dtype.
            padding: see the module.
        """
        if bool((lengths == num_frames).all()):
            return None
        index = torch.arange(num_frames, device=like.device)
        return cls((index < lengths.to(like.device)[:, None])[:, None].to(like.dtype), padding)

    @cached_property
    def halved(self) -> FrameMask:
        """The mask behind a convolution of stride 2."""
        return FrameMask(self.is_valid[:, :, ::2], self.padding)

    def repeated(self, times: int) -> FrameMask:
        """The mask of the same rows several times over."""
        return FrameMask(self.is_valid.repeat(times, 1, 1), self.padding)

    @cached_property
    def attention_bias(self) -> Tensor:
        """Added to the attention scores: ``[B, 1, M, M]``, query by key."""
        if self.padding == "reference":  # padded queries count too: the next layer does not hide what they found
            return (self.is_valid.transpose(1, 2) * self.is_valid)[:, None]
        # Keys are hidden, queries are not: every query sees the row's valid frames, of which there is at least one, so
        # no softmax runs over nothing, and -inf is safe. What padded queries find is zeroed behind the layers.
        return self.key_bias.expand(-1, -1, self.is_valid.shape[2], -1)

    @cached_property
    def key_bias(self) -> Tensor:
        """Added to the scores of queries of another sequence: ``[B, 1, 1, M]``, which hides padded keys."""
        hidden = torch.zeros_like(self.is_valid).masked_fill(self.is_valid == 0, -math.inf)
        return hidden[:, None]


def hide(x_BCM: Tensor, mask: FrameMask | None) -> Tensor:
    """Sets padded frames to zero."""
    return x_BCM if mask is None else x_BCM * mask.is_valid


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm that, with hidden padding, takes its statistics over the valid frames only."""

    def forward(self, x_BCM: Tensor, mask: FrameMask | None = None) -> Tensor:
        """Normalizes ``[B, C, M]``; padded frames of the result hold numbers without meaning."""
        if mask is None or mask.padding == "reference":
            # Not super().forward(x_BCM), which refuses groups of a single value.
            return torch.group_norm(x_BCM, self.num_groups, self.weight, self.bias, self.eps)
        # In float32: the difference of two close numbers has no digits left in bfloat16.
        dtype = torch.promote_types(x_BCM.dtype, torch.float32)
        is_valid = mask.is_valid[:, :, None].to(dtype)
        x = x_BCM.unflatten(1, (self.num_groups, -1)).to(dtype)
        count = is_valid.sum((2, 3), keepdim=True) * x.shape[2]
        mean = (x * is_valid).sum((2, 3), keepdim=True) / count
        centred = (x - mean) * is_valid  # so that padded frames add nothing to the variance
        variance = centred.square().sum((2, 3), keepdim=True) / count
        normalized = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2).to(x_BCM.dtype)
        return normalized * self.weight[:, None] + self.bias[:, None]
