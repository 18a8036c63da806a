"""The optimizer of every trainer: AdamW that decays matrices only."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class AdamWSettings(Protocol):
    """What a run's config says of it."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    @property
    def weight_decay(self) -> float:
        """Decoupled weight decay."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay rates of the two moments."""


def adamw(module: nn.Module, config: AdamWSettings, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the trainable weights; vectors (norms and biases) are not decayed."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        fused=device.type in ("cpu", "cuda", "xpu", "mps"),
    )
