"""The encoder: two strided convolutions, and blocks of attention with a memory beside it.

The memory (FSMN: feedforward sequential memory network) is a depthwise convolution of the values over time. There are
no positions but the rotation of queries and keys, and no norm behind the last block.
"""
# Shapes: B batch, M mel bins, F mel frames, T tokens (a quarter of F, rounded up twice), D feature size, H heads.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.layers.rotary import rotary_angles, rotate
from audiollm.tokenizer.linear import Linear

HEAD_SIZE = 64
MEMORY_FRAMES = 31  # of the convolution: 15 on either side
_HIDDEN = -1e10  # added to the scores of padding


def num_tokens(num_frames: int) -> int:
    """Tokens that mel frames give: two convolutions, each of every second frame."""
    return ((num_frames + 1) // 2 + 1) // 2


class SpeechEncoder(nn.Module):
    """Log-mel features to the features that are quantized.

    Args:
        num_mel_bins: M.
        size: D, a multiple of 64, which is the size of a head.
        num_blocks: blocks behind the convolutions.
    """

    def __init__(self, num_mel_bins: int, size: int, num_blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(num_mel_bins, size, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(size, size, kernel_size=3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(num_blocks))

    def forward(self, features_BMF: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        """Computes ``[B, T, D]``.

        Args:
            features_BMF: log-mel features, ``[B, M, F]``.
            num_frames_B: valid frames of each row, int64 ``[B]``; None if all are. What lies behind them has no
                influence on them.
        """
        hidden_BDT = features_BMF.to(self.conv1.weight.dtype)
        for conv in (self.conv1, self.conv2):
            if num_frames_B is not None:
                hidden_BDT = hidden_BDT * _valid(num_frames_B, hidden_BDT.shape[2])[:, None]
                num_frames_B = (num_frames_B + 1) // 2
            hidden_BDT = F.gelu(conv(hidden_BDT))
        hidden_BTD = hidden_BDT.transpose(1, 2)
        valid_BT = None if num_frames_B is None else _valid(num_frames_B, hidden_BTD.shape[1])
        angles = rotary_angles(hidden_BTD.shape[1], HEAD_SIZE, hidden_BTD.device)
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD, valid_BT, angles)
        return hidden_BTD


def _valid(lengths_B: Tensor, num_frames: int) -> Tensor:
    return torch.arange(num_frames, device=lengths_B.device) < lengths_B[:, None]


class _Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.attn = _AttentionWithMemory(size)
        self.attn_ln = nn.LayerNorm(size, eps=1e-6)
        self.mlp = nn.Sequential(Linear(size, 4 * size), nn.GELU(), Linear(4 * size, size))
        self.mlp_ln = nn.LayerNorm(size)

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None, angles: tuple[Tensor, Tensor]) -> Tensor:
        hidden_BTD = hidden_BTD + self.attn(self.attn_ln(hidden_BTD), valid_BT, angles)
        hidden_BTD = hidden_BTD + self.mlp(self.mlp_ln(hidden_BTD))
        return hidden_BTD


class _AttentionWithMemory(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.query = Linear(size, size)
        self.key = Linear(size, size, bias=False)
        self.value = Linear(size, size)
        self.out = Linear(size, size)
        self.fsmn_block = nn.Conv1d(
            size, size, MEMORY_FRAMES, padding=MEMORY_FRAMES // 2, groups=size, bias=False
        )  # fmt: skip

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None, angles: tuple[Tensor, Tensor]) -> Tensor:
        value_BTD = self.value(hidden_BTD)
        query, key, value = (
            one.unflatten(-1, (-1, HEAD_SIZE)).transpose(1, 2)
            for one in (self.query(hidden_BTD), self.key(hidden_BTD), value_BTD)
        )
        bias = None
        if valid_BT is not None:
            bias = torch.zeros_like(valid_BT, dtype=query.dtype).masked_fill(~valid_BT, _HIDDEN)[:, None, None]
        mixed_BHTC = F.scaled_dot_product_attention(rotate(query, angles), rotate(key, angles), value, attn_mask=bias)
        mixed_BTD: Tensor = self.out(mixed_BHTC.transpose(1, 2).flatten(2))
        return mixed_BTD + self._memory(value_BTD, valid_BT)

    def _memory(self, value_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        if valid_BT is not None:
            value_BTD = value_BTD * valid_BT[..., None]
        memory_BTD = self.fsmn_block(value_BTD.transpose(1, 2)).transpose(1, 2) + value_BTD
        return memory_BTD if valid_BT is None else memory_BTD * valid_BT[..., None]
