"""Semantic-Acoustic Equilibrium: a gated residual that brings a shallow layer's features back to a deep layer.

Deep Whisper layers keep what was said and lose how it sounded; the gate decides per channel and frame how much of
the shallow, acoustic features returns.
"""
# Shapes: B batch, T frames, D feature size.

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiollm.tokenizer.linear import Linear

ADAPTER_DROPOUT = 0.1  # as in the released checkpoints' training


class SemanticAcousticEquilibrium(nn.Module):
    """Computes ``LayerNorm(deep + gate * adapter(shallow))``.

    Args:
        dim: feature size D.
        use_adapter: pass the shallow features through a two-layer adapter; else they are added as they are.
        use_gate: weight them by a learned gate in (0, 1); else by 1.

    Adapter, gate and norm always exist, whatever the switches, because released checkpoints hold all three.
    """

    def __init__(self, dim: int, *, use_adapter: bool, use_gate: bool) -> None:
        super().__init__()
        self.use_adapter = use_adapter
        self.use_gate = use_gate
        self.adapter = nn.Sequential(Linear(dim, dim), nn.GELU(), nn.Dropout(ADAPTER_DROPOUT), Linear(dim, dim))
        self.gate = nn.Sequential(Linear(2 * dim, dim), nn.Tanh(), Linear(dim, dim), nn.Sigmoid())
        self.norm = nn.LayerNorm(dim)

    def forward(self, deep_BTD: Tensor, shallow_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Fuses two layers' features.

        Args:
            deep_BTD: output of the target layer, ``[B, T, D]``.
            shallow_BTD: output of the source layer, ``[B, T, D]``.

        Returns:
            The fused features ``[B, T, D]`` and the gate ``[B, T, D]``, None when the gate is switched off.
        """
        residual_BTD = self.adapter(shallow_BTD) if self.use_adapter else shallow_BTD
        if not self.use_gate:
            return self.norm(deep_BTD + residual_BTD), None
        gate_BTD = self.gate(torch.cat([deep_BTD, shallow_BTD], dim=-1))
        return self.norm(deep_BTD + gate_BTD * residual_BTD), gate_BTD


def gate_per_frame(gate_BTD: Tensor | None, features_BTD: Tensor) -> Tensor:
    """Averages the gate over channels, detached, float32 ``[B, T]``; 1 where the gate is switched off."""
    if gate_BTD is None:
        return torch.ones(features_BTD.shape[:2], device=features_BTD.device)
    return gate_BTD.detach().mean(dim=-1, dtype=torch.float32)


def mean_gate(gate_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Averages over the valid frames of all clips: a float32 scalar, 0 if there are none."""
    if mask_BT is None:
        return gate_BT.mean()
    weights_BT = mask_BT.float()
    return (gate_BT * weights_BT).sum() / weights_BT.sum().clamp(min=1)  # a batch of padding alone: 0, not NaN


def mean_gate_per_clip(gate_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Averages over each clip's valid frames, float32 ``[B]``; 0 for a clip without any."""
    if mask_BT is None:
        return gate_BT.mean(dim=1)
    weights_BT = mask_BT.float()
    return (gate_BT * weights_BT).sum(dim=1) / weights_BT.sum(dim=1).clamp(min=1)
