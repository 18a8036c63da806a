"""A diffusion transformer (Peebles and Xie, 2023, arXiv:2212.09748) on frames: the velocity of the flow to latents.

All blocks share what the time says, each with a table of its own added (as in PixArt-α, arXiv:2310.00426).
"""
# Shapes: B rows, T frames, D size, C channels in, L channels out.

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.linear import Linear

from .configuration import ReasoningCodecConfig

EPSILON = 1e-6  # of all its layer norms, which have no weights
TIME_SCALE = 1000.0
SLOWEST = 10000.0
KERNEL = 3


class FrameProjection(nn.Module):
    """A convolution over neighbours and a layer for each frame, ``[B, T, C]`` to ``[B, T, D]``."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_size, out_size, KERNEL, padding=KERNEL // 2)
        self.linear = Linear(out_size, out_size)

    def forward(self, frames_BTC: Tensor) -> Tensor:
        hidden_BTD = self.conv(frames_BTC.transpose(1, 2)).transpose(1, 2) * KERNEL**-0.5
        projected_BTD: Tensor = self.linear(hidden_BTD)
        return projected_BTD


class TimeEmbedding(nn.Module):
    """What is said of a time in [0, 1], ``[B]`` to ``[B, D]``."""

    def __init__(self, time_size: int, size: int) -> None:
        super().__init__()
        self.time_size = time_size
        self.layers = nn.Sequential(Linear(time_size, size), nn.SiLU(), Linear(size, size))

    def forward(self, t_B: Tensor) -> Tensor:
        half = self.time_size // 2
        powers = torch.arange(half, device=t_B.device, dtype=torch.float32) / half
        angles = TIME_SCALE * t_B.float()[:, None] * torch.exp(-math.log(SLOWEST) * powers)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embedded: Tensor = self.layers(waves.to(next(self.layers.parameters()).dtype))
        return embedded


class Attention(nn.Module):
    """Of all frames to all, ``[B, T, D]`` to the same."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.out = (Linear(size, size) for _ in range(4))

    def forward(self, frames_BTD: Tensor) -> Tensor:
        rows = (one(frames_BTD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        mixed_BTD: Tensor = self.out(F.scaled_dot_product_attention(*rows).transpose(1, 2).flatten(2))
        return mixed_BTD


class Block(nn.Module):
    """Attention and two layers, each normed, moved by the time, and added through a gate that the time opens."""

    def __init__(self, size: int, num_heads: int, inner_size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, size) * size**-0.5)
        self.attention = Attention(size, num_heads)
        self.inner = Linear(size, inner_size)
        self.outer = Linear(inner_size, size)

    def forward(self, frames_BTD: Tensor, said_B6D: Tensor) -> Tensor:
        shift, scale, gate, feed_shift, feed_scale, feed_gate = (self.table + said_B6D)[:, :, None].unbind(1)
        frames_BTD = frames_BTD + gate * self.attention(_modulated(frames_BTD, shift, scale))
        hidden = F.gelu(self.inner(_modulated(frames_BTD, feed_shift, feed_scale)), approximate="tanh")
        return frames_BTD + feed_gate * self.outer(hidden)


def _modulated(frames_BTD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    return F.layer_norm(frames_BTD, frames_BTD.shape[-1:], eps=EPSILON) * (1 + scale_B1D) + shift_B1D


class DiT(nn.Module):
    """Where the flow is, what is given and the condition to a velocity."""

    positions: Tensor

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        size = config.dit_size
        self.input = FrameProjection(config.dit_input_size, size)
        self.time = TimeEmbedding(config.dit_time_size, size)
        self.modulation = Linear(size, 6 * size)
        self.blocks = nn.ModuleList(
            Block(size, config.dit_heads, config.dit_inner_size) for _ in range(config.dit_layers)
        )
        self.table = nn.Parameter(torch.randn(2, size) * size**-0.5)
        self.output = FrameProjection(size, config.latent_size)
        self.register_buffer("positions", sinusoids(config.dit_positions, size)[None])

    def forward(self, frames_BTC: Tensor, t_B: Tensor) -> Tensor:
        """Computes ``[B, T, L]``.

        Raises:
            ValueError: for more frames than there are positions.
        """
        num_frames = frames_BTC.shape[1]
        if num_frames > self.positions.shape[1]:
            raise ValueError(f"{num_frames} frames at once: this decoder has {self.positions.shape[1]} positions")
        frames_BTD = self.input(frames_BTC) + self.positions[:, :num_frames].to(frames_BTC.dtype)
        time_BD, said_B6D = self.said_of(t_B)
        for block in self.blocks:
            frames_BTD = block(frames_BTD, said_B6D)
        shift_B1D, scale_B1D = (self.table + time_BD[:, None])[:, :, None].unbind(1)
        velocity_BTL: Tensor = self.output(_modulated(frames_BTD, shift_B1D, scale_B1D))
        return velocity_BTL

    def said_of(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """What is said of times: to the end ``[B, D]``, and to all blocks ``[B, 6, D]``."""
        time_BD = self.time(t_B)
        return time_BD, self.modulation(F.silu(time_BD)).unflatten(-1, (6, -1))


def sinusoids(num_positions: int, size: int) -> Tensor:
    """Fixed positions, float32 ``[num_positions, size]``: sines at even numbers, cosines at odd ones."""
    frequencies = torch.exp(-math.log(SLOWEST) * torch.arange(0, size, 2) / size)
    angles = torch.arange(num_positions)[:, None] * frequencies
    table = torch.zeros(num_positions, size)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles[:, : size // 2].cos()
    return table
