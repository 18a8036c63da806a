"""The optimizer of every trainer: AdamW that decays matrices only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from .config import RunConfig


def adamw(module: nn.Module, config: RunConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the trainable weights; vectors (norms and biases) are not decayed."""
    return adamw_by_part({"all": module.parameters()}, {"all": config.learning_rate}, config, device)


def adamw_by_part(
    parts: Mapping[str, Iterable[nn.Parameter]],
    learning_rates: Mapping[str, float],
    config: RunConfig,
    device: torch.device,
) -> torch.optim.AdamW:
    """AdamW with a learning rate for each part of a model.

    Args:
        parts: parameters by name of the part; those that are not trainable are left out.
        learning_rates: peak of each part.
        config: what the parts share.
        device: where they are.

    Returns:
        The optimizer. Each of its groups has a ``part`` beside what AdamW gives it.
    """
    groups = []
    for part, parameters in parts.items():
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        # Decay keeps matrices small; a norm's gain or a bias has no reason to go to zero.
        matrices, vectors = [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
        for chosen, weight_decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if chosen:
                settings = {"lr": learning_rates[part], "weight_decay": weight_decay, "part": part}
                groups.append({"params": chosen, **settings})
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=config.betas,
        # One kernel for all weights; torch has it for these devices and refuses it on others.
        fused=device.type in ("cpu", "cuda", "xpu", "mps"),
    )
