"""Percentile bootstrap (Efron, 1979): how far a figure may be off by the choice of items."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

NUM_RESAMPLES = 10_000
_VALUES_AT_A_TIME = 1 << 22  # 32 MiB of float64; resamples of a million items would need 80 GB at once


@dataclass(frozen=True)
class Interval:
    """Where a mean lies with a probability of ``level`` when items are drawn anew."""

    low: float
    high: float
    level: float
    num_resamples: int
    seed: int

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def share_interval(num_right: int, num_items: int, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """The interval of a share of right items.

    Drawing n items with replacement, of which k are right, gives a binomial number of right ones: that is drawn at
    once, however many items there are. All right or all wrong gives an interval without width: the bootstrap cannot
    know better.

    Args:
        num_right: k.
        num_items: n; None is returned for 0.
        level: share of the resamples inside.
        seed: of the draws.

    Raises:
        ValueError: if not 0 <= num_right <= num_items.
    """
    if not 0 <= num_right <= num_items:
        raise ValueError(
            f"{num_right} of {num_items} items right: give a number of items and how many of them are right"
        )
    if num_items == 0:
        return None
    draws = np.random.default_rng(seed).binomial(num_items, num_right / num_items, NUM_RESAMPLES)
    return _percentiles(draws / num_items, level, seed)


def mean_interval(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """The interval of a mean of any values ``[n]``; None without values."""
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.size == 0:
        return None
    random = np.random.default_rng(seed)
    per_round = max(1, _VALUES_AT_A_TIME // values_N.size)
    means = [
        values_N[random.integers(0, values_N.size, (min(per_round, NUM_RESAMPLES - start), values_N.size))].mean(axis=1)
        for start in range(0, NUM_RESAMPLES, per_round)  # one generator: the rounds draw on from each other
    ]
    return _percentiles(np.concatenate(means), level, seed)


def _percentiles(means: np.ndarray, level: float, seed: int) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, NUM_RESAMPLES, seed)
