"""The released teacher: MiDashengLM's audio encoder, a vision transformer on patches of a mel spectrogram."""
# Shapes: B pieces, N samples, M mel bins, F mel frames, T tokens, E feature size, H heads.

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.configuration import require_positive
from audiollm.tokenizer.losatok.configuration import MARGIN, PATCH_FRAMES, PIECE_TOKENS
from audiollm.tokenizer.losatok.front_ends import FrontEnd, decibels, within_range
from audiollm.tokenizer.zoo.settings import require_few

from .base import Teacher

EPSILON = 1e-6  # of all its layer norms
LAYER_SCALE = 1e-5  # where its layer scales start, if it has some


@dataclass(frozen=True, kw_only=True)
class DashengSizes:
    """The defaults are those of the released one."""

    size: int = 1280
    num_layers: int = 32
    num_heads: int = 16
    mlp_size: int = 5120
    num_mels: int = 64
    n_fft: int = 512
    piece_tokens: int = PIECE_TOKENS
    """Positions in time."""
    has_layer_scale: bool = False

    def __post_init__(self) -> None:
        require_positive(
            self, "size", "num_layers", "num_heads", "mlp_size", "num_mels", "n_fft", "piece_tokens"
        )  # fmt: skip
        require_few(self, "num_layers")
        if self.size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} do not divide features of {self.size} numbers")
        if self.n_fft > 2 * MARGIN or self.n_fft % 2:
            raise ValueError(f"n_fft={self.n_fft}: use an even number up to {2 * MARGIN}")


class InputNorm(nn.Module):
    """Batch norm over mel bins by its stored statistics, ``[B, M, F]`` to the same: a frozen encoder has no others."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_mels))
        self.bias = nn.Parameter(torch.zeros(num_mels))
        self.register_buffer("running_mean", torch.zeros(num_mels))
        self.register_buffer("running_var", torch.ones(num_mels))

    def forward(self, mel_BMF: Tensor) -> Tensor:
        statistics = (self.running_mean.float(), self.running_var.float())
        return F.batch_norm(mel_BMF, *statistics, self.weight.float(), self.bias.float())


class Attention(nn.Module):
    """Of all tokens to all, ``[B, T, E]`` to the same."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)

    def forward(self, features_BTE: Tensor) -> Tensor:
        q, k, v = self.qkv(features_BTE).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BTE: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed_BTE


class LayerScale(nn.Module):
    """A factor for each number of a vector."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((size,), LAYER_SCALE))

    def forward(self, features_BTE: Tensor) -> Tensor:
        return features_BTE * self.gamma


class Mlp(nn.Module):
    """Two layers for each token."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, inner_size)
        self.fc2 = nn.Linear(inner_size, size)

    def forward(self, features_BTE: Tensor) -> Tensor:
        made: Tensor = self.fc2(F.gelu(self.fc1(features_BTE)))
        return made


class Block(nn.Module):
    """Attention and two layers, each added to its own input, which is normed before."""

    def __init__(self, sizes: DashengSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.size, eps=EPSILON)
        self.attn = Attention(sizes.size, sizes.num_heads)
        self.ls1 = LayerScale(sizes.size) if sizes.has_layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(sizes.size, eps=EPSILON)
        self.mlp = Mlp(sizes.size, sizes.mlp_size)
        self.ls2 = LayerScale(sizes.size) if sizes.has_layer_scale else nn.Identity()

    def forward(self, features_BTE: Tensor) -> Tensor:
        features_BTE = features_BTE + self.ls1(self.attn(self.norm1(features_BTE)))
        added_BTE: Tensor = self.ls2(self.mlp(self.norm2(features_BTE)))
        return features_BTE + added_BTE


class DashengTeacher(Teacher):
    """A Dasheng encoder."""

    kind = "dasheng"
    has_range = True

    def __init__(self, sizes: DashengSizes) -> None:
        super().__init__(sizes.size, sizes.piece_tokens)
        self.sizes = sizes
        self.front_end = FrontEnd(sizes.n_fft, sizes.num_mels, power=2)
        self.input_norm = InputNorm(sizes.num_mels)
        patch = (sizes.num_mels, PATCH_FRAMES)
        self.patch = nn.Conv2d(1, sizes.size, kernel_size=patch, stride=patch)
        self.time_positions = nn.Parameter(0.02 * torch.randn(1, sizes.size, 1, sizes.piece_tokens))
        self.frequency_position = nn.Parameter(0.02 * torch.randn(1, sizes.size, 1, 1))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.num_layers))
        self.norm = nn.LayerNorm(sizes.size, eps=EPSILON)

    def forward(self, extended_BN: Tensor, loudest_B: Tensor | None = None) -> Tensor:
        mel_BMF = decibels(self.front_end(extended_BN))
        return self.encode(within_range(mel_BMF, self._maximum(mel_BMF) if loudest_B is None else loudest_B))

    def encode(self, mel_BMF: Tensor) -> Tensor:
        """Computes features ``[B, T, E]`` of decibels; mel frames that fill no patch are dropped.

        Raises:
            ValueError: if there are more tokens than positions.
        """
        normed_BMF = self.input_norm(mel_BMF.float())
        patches_BE1T = self.patch(normed_BMF[:, None].to(self.patch.weight.dtype))
        num_tokens = patches_BE1T.shape[-1]
        if num_tokens > self.piece_tokens:
            raise ValueError(f"{num_tokens} tokens at once: this teacher has {self.piece_tokens} positions")
        placed_BE1T = patches_BE1T + self.time_positions[..., :num_tokens] + self.frequency_position
        features_BTE = placed_BE1T[:, :, 0].transpose(1, 2)
        for block in self.blocks:
            features_BTE = block(features_BTE)
        normed_BTE: Tensor = self.norm(features_BTE)
        return normed_BTE

    def loudest(self, extended_BN: Tensor) -> Tensor:
        """The loudest cell in decibels."""
        return self._maximum(decibels(self.front_end(extended_BN)))

    def _maximum(self, mel_BMF: Tensor) -> Tensor:
        return mel_BMF.amax(dim=(1, 2))

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.sizes)
