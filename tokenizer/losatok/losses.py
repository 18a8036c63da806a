"""What a LoSATok is trained by, beside the distance of its sound: alignment of its two sides, and narrow latents."""
# Shapes: B clips, T frames, E feature size, D latent size.

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from .model import Encoded

AlignmentMode = Literal["both", "high_only", "low_only"]


def alignment_loss(encoded: Encoded, mode: AlignmentMode = "both") -> Tensor:
    """Draws what is heard towards what is meant: mean squared differences of high and of low features, added.

    No gradient goes to the semantic side.
    """
    high = F.mse_loss(encoded.acoustic_high.float(), encoded.semantic_high.detach().float())
    low = F.mse_loss(encoded.acoustic_low.float(), encoded.semantic_low.detach().float())
    return {"both": high + low, "high_only": high, "low_only": low}[mode]


def kl_per_dimension(encoded: Encoded) -> Tensor:
    """Divergence of each dimension of each frame from the standard normal distribution, in nats, ``[B, T, D]``."""
    mean, log_variance = encoded.mean.float(), encoded.log_variance.float()
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp())


def kl_loss(divergence_BTD: Tensor, clamp: float = 0.0) -> Tensor:
    """Divergence of a frame, in nats, as a mean over frames.

    Args:
        divergence_BTD: what `kl_per_dimension` gave.
        clamp: least of each dimension; what is below costs nothing more (free bits). Another thing than the weight of
            this loss, although the released checkpoints are called by either.
    """
    return divergence_BTD.clamp(min=clamp).sum(dim=-1).mean()


def log_variance_loss(encoded: Encoded) -> Tensor:
    """Sum of the squared log-variances of a frame, as a mean over frames: keeps them near 1."""
    return encoded.log_variance.float().square().sum(dim=-1).mean()
