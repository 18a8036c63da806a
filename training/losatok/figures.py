"""What latents tell of themselves: how many directions they use, and which of their dimensions tell nothing."""
# Shapes: S frames, D features.

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(features_SD: Tensor) -> float:
    """How many directions features use: the exponential of the entropy of their singular values.

    Roy and Vetterli, 2007. Between 1 (all on a line) and D (as wide in every direction); 0 if all are the same. The
    mean is taken off.

    Args:
        features_SD: two frames or more, ``[S, D]``.
    """
    # Of the covariance, whose size does not grow with the frames; float64, as its values are squares.
    centred = features_SD.double().cpu()
    centred = centred - centred.mean(dim=0)
    values = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    total = float(values.sum())
    if total < 1e-12:
        return 0.0
    shares = values[values > total * 1e-12] / total
    return float((-(shares * shares.log()).sum()).exp())


def spectrum(features_SD: Tensor) -> list[float]:
    """Share of the variance in each main direction, the largest first."""
    centred = features_SD.double().cpu()
    centred = centred - centred.mean(dim=0)
    values = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).flip(0)
    return [float(value) for value in values / values.sum().clamp(min=1e-30)]


def num_collapsed(kl_D: Tensor, below: float) -> int:
    """Dimensions whose mean divergence from the standard normal distribution is below so many nats."""
    return int((kl_D < below).sum())
