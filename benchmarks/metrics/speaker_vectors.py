"""How alike two speaker vectors are; apart from the metric, so that judges load without ``evaluate``."""

from __future__ import annotations

from typing import Any

import numpy as np

EPSILON = 1e-8  # shorter vectors are taken to be so long, as in torch's cosine_similarity


def cosine(made: Any, wanted: Any, name: str = "pair") -> float:
    """Cosine of two vectors ``[S]``.

    Raises:
        ValueError: they differ in size, are empty, or are not finite.
    """
    left, right = np.asarray(made, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or left.size == 0:
        raise ValueError(f"{name}: speaker vectors have shapes {left.shape} and {right.shape}; give two of one size")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError(f"{name}: a speaker vector holds NaN or infinite numbers")
    lengths = max(float(np.linalg.norm(left)), EPSILON) * max(float(np.linalg.norm(right)), EPSILON)
    return float(left @ right) / lengths
