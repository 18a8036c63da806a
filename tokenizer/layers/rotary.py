"""Rotary positions: queries and keys turned by an angle that grows with their place, so that products tell distances.

After Su et al., 2021 (arXiv:2104.09864), in the pairing of Llama: a channel of the first half with one of the second.
"""
# Shapes: B batch, H heads, T frames, C channels of a head.

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(
    num_frames: int, num_channels: int, device: torch.device, *, base: float = 10000.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles of each frame, float32 ``[T, C / 2]`` each."""
    frequencies = base ** -(torch.arange(0, num_channels, 2, device=device).float() / num_channels)
    angles = torch.outer(torch.arange(num_frames, device=device).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(values_BHTC: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turns each pair of channels by its angle, in float32; the result has the dtype of the input."""
    cosine, sine = angles
    first, second = values_BHTC.float().chunk(2, dim=-1)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return turned.to(values_BHTC.dtype)
