"""A start for the codebook: entries placed on real features by k-means, so that codes mean something before training.

Training with a random codebook starts by pulling all features to a few entries; entries on the data avoid that
(data-dependent initialisation, as in Łańcucki et al., 2020, arXiv:2005.08520).
"""
# Shapes: N frames, D feature size, P metric size, V codebook entries.

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from .codebook import Codebook

logger = logging.getLogger(__name__)

SMALLEST_VARIANCE = 1e-4  # of a direction, as a share of the greatest
COVARIANCE_ROWS = 16384  # frames that are there in float64 at once: 170 MB of 1,280 dimensions


@dataclass(frozen=True)
class CodebookFit:
    """How well the fitted entries cover the features they were fitted on."""

    num_frames: int
    usage: float
    """Share of entries that are the nearest one of at least one frame, 0 to 1."""
    quantization_error: float
    """Mean squared distance of a frame to its entry over the variance of the frames: 0 is perfect, 1 one mean."""


@torch.no_grad()
def fit_entries(codebook: Codebook, features_ND: Tensor, *, num_passes: int = 6, seed: int = 0) -> CodebookFit:
    """Runs k-means (Lloyd's algorithm) from random frames, on the features' device; entries nobody uses are redrawn.

    A codebook with a metric is given `whitening` of the features first.

    Raises:
        ValueError: if there are fewer frames than entries, or features that are no numbers.
    """
    num_frames, num_entries = len(features_ND), codebook.codebook_size
    if num_frames < num_entries:
        raise ValueError(
            f"{num_frames} frames cannot fill a codebook of {num_entries} entries; "
            f"give at least {num_entries / 25 / 60:.0f} minutes of audio at 25 Hz, or use a smaller codebook_size"
        )
    num_wrong = num_frames - int(features_ND.isfinite().all(dim=1).sum())
    if num_wrong:  # one would make its entry, and every distance to it, NaN
        raise ValueError(
            f"{num_wrong} of {num_frames} frames hold NaN or infinity: the encoder's weights are damaged, or its "
            "features too large for its dtype; load it in float32"
        )
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same frames on every device

    def draw(count: int) -> Tensor:
        # Without repetition: of two entries on one frame the first would win every tie, and the other stay unused.
        return features_ND[torch.randperm(num_frames, generator=generator)[:count].to(features_ND.device)]

    if codebook.metric is not None:
        codebook.metric.copy_(whitening(features_ND, len(codebook.metric)))
    codebook.weight.copy_(draw(num_entries))
    for number in range(num_passes):
        codes_N = codebook.encode(features_ND)
        counts_V = torch.bincount(codes_N, minlength=num_entries)
        sums_VD = torch.zeros_like(codebook.weight).index_add_(0, codes_N, features_ND)
        codebook.weight.copy_(sums_VD / counts_V.clamp(min=1).unsqueeze(1))  # unused ones are drawn anew below
        unused_V = counts_V == 0
        codebook.weight[unused_V] = draw(int(unused_V.sum()))
        logger.info("k-means pass %d: %d of %d entries unused", number + 1, int(unused_V.sum()), num_entries)
    codebook.reset_statistics()
    codes_N = codebook.encode(features_ND)
    error = (features_ND - codebook.weight[codes_N]).square().sum(dim=1).mean()
    return CodebookFit(
        num_frames=num_frames,
        usage=len(codes_N.unique()) / num_entries,
        quantization_error=float(error / features_ND.var(dim=0, correction=0).sum()),
    )


@torch.no_grad()
def whitening(features_ND: Tensor, size: int) -> Tensor:
    """Finds the map to the strongest principal components, each divided by its standard deviation.

    Whisper's features have a few directions of large variance, such as loudness, on which plain k-means spends its
    entries; behind this map all directions count alike.

    Args:
        features_ND: float ``[N, D]``.
        size: P, how many components to keep.

    Returns:
        The map, float32 ``[P, D]``; mapped features have variance 1 over all components together.
    """
    variances_D, directions_DD = torch.linalg.eigh(_covariance(features_ND))
    variances_P, directions_DP = variances_D[-size:].flip(0), directions_DD[:, -size:].flip(1)
    # What never varies (a silent channel) is no direction to tell frames apart by, and must not be blown up to one.
    floor = variances_P[0] * SMALLEST_VARIANCE
    if floor <= torch.finfo(torch.float32).tiny:  # nothing varies at all: any directions, at their own scale
        variances_P, floor = torch.ones_like(variances_P), torch.ones_like(floor)
    return (directions_DP / (variances_P.clamp(min=floor) * size).sqrt()).T.float()


def _covariance(features_ND: Tensor) -> Tensor:
    """In float64, as the weakest components are differences of numbers that nearly agree; some frames at a time."""
    mean_D = features_ND.mean(dim=0, dtype=torch.float64)
    sums_DD = mean_D.new_zeros(len(mean_D), len(mean_D))
    for rows_ND in features_ND.split(COVARIANCE_ROWS):
        centred_ND = rows_ND.double() - mean_D
        sums_DD += centred_ND.T @ centred_ND
    return sums_DD / len(features_ND)
