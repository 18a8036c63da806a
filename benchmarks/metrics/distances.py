"""Distances of sets of vectors and of probabilities; apart from metrics, so that trainers load without ``evaluate``."""
# Shapes: F vectors, D size, C classes.

from __future__ import annotations

from typing import Any

import numpy as np

SMALLEST_PROBABILITY = 1e-7


def frechet_distance(made: Any, wanted: Any) -> float:
    """Fréchet distance of two normal distributions with the means and covariances of two sets of vectors.

    ``|m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½)``, with covariances divided by F - 1 (Kilgour et al., 2019,
    arXiv:1812.08466).

    Args:
        made: floats ``[F, D]``.
        wanted: floats ``[G, D]``.

    Returns:
        0 or more.

    Raises:
        ValueError: if there are less than two vectors, they differ in size, or are not finite.
    """
    left, right = (np.asarray(one, dtype=np.float64) for one in (made, wanted))
    for name, one in (("made", left), ("wanted", right)):
        if one.ndim != 2 or len(one) < 2 or one.shape[1] == 0:
            raise ValueError(f"{name}: vectors have shape {one.shape}; give two or more, [F, D]")
        if not np.isfinite(one).all():
            raise ValueError(f"{name}: a vector holds NaN or infinite numbers")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"vectors have {left.shape[1]} and {right.shape[1]} numbers; give two sets of one size")
    first, second = (np.atleast_2d(np.cov(one, rowvar=False)) for one in (left, right))
    # (S₁ S₂)^½ has the trace of (S₁^½ S₂ S₁^½)^½, which is symmetric and whose root is therefore a safe one.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    means = left.mean(axis=0) - right.mean(axis=0)
    return max(0.0, float(means @ means + np.trace(first) + np.trace(second) - 2 * shared))


def kl_divergence(made: Any, wanted: Any, name: str = "pair") -> float:
    """Divergence of probabilities ``made`` from those wanted, ``Σ w log(w / m)``, in nats.

    Args:
        made: probabilities ``[C]``.
        wanted: of as many classes.
        name: for messages.

    Raises:
        ValueError: they differ in size, or are no probabilities that sum up to 1.
    """
    left, right = np.asarray(made, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or left.size == 0:
        raise ValueError(f"{name}: probabilities have shapes {left.shape} and {right.shape}; give two of one size")
    for one in (left, right):
        if not np.isfinite(one).all() or (one < 0).any() or abs(one.sum() - 1) > 1e-3:
            raise ValueError(f"{name}: probabilities are negative, no numbers, or do not sum up to 1: use a softmax")
    left, right = (one.clip(min=SMALLEST_PROBABILITY) for one in (left, right))
    left, right = left / left.sum(), right / right.sum()
    return float((right * np.log(right / left)).sum())
