"""Paired tests: whether two results on the same items differ by more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audiollm.benchmarks.metrics.waveform_pairs import bench_library
from audiollm.benchmarks.questions.grading.bootstrap import Interval, mean_interval

LEVEL = 0.95
MIN_BOOTSTRAP_ITEMS = 10  # of fewer, resampling says nothing


@dataclass(frozen=True)
class TestedDifference:
    """How a difference compares with chance.

    Attributes:
        test: what was computed, in words.
        num_items: how many items it is over.
        p_value: probability of a difference as large by chance alone; None where an interval decides.
        interval: of the difference; None where a probability decides.
        beyond_chance: whether it would come by chance in less than one of twenty cases.
    """

    test: str
    num_items: int
    p_value: float | None
    interval: tuple[float, float] | None
    beyond_chance: bool


def mcnemar(old: Sequence[bool], new: Sequence[bool]) -> TestedDifference:
    """The exact test of McNemar (1947): the items that changed, against a fair coin.

    Args:
        old: whether each item was right.
        new: the same, of the same items.
    """
    num_lost = sum(before and not after for before, after in zip(old, new, strict=True))
    num_won = sum(after and not before for before, after in zip(old, new, strict=True))
    p_value = _coin(num_won, num_lost)
    return TestedDifference("exact McNemar, paired by item", len(old), p_value, None, p_value < 1 - LEVEL)


def bootstrap_difference(
    old: Mapping[str, float], new: Mapping[str, float], *, seed: int = 0
) -> TestedDifference | None:
    """The percentile bootstrap of the mean difference, over the items that both have; None if there are none.

    Args:
        old: value of each item.
        new: the same.
        seed: of the draws.
    """
    differences = [new[item] - value for item, value in old.items() if item in new]
    interval: Interval | None = mean_interval(differences, level=LEVEL, seed=seed)
    if interval is None:
        return None
    # An interval that touches 0 says nothing: equal values on all items give one without width.
    beyond = interval.low > 0 or interval.high < 0
    return TestedDifference(
        "bootstrap, paired by item",
        len(differences),
        None,
        (interval.low, interval.high),
        beyond and len(differences) >= MIN_BOOTSTRAP_ITEMS,
    )


def fisher(old: tuple[int, int], new: tuple[int, int]) -> TestedDifference | None:
    """Fisher's exact test of two shares of which only counts are known; None without counts.

    It takes the items of the two for different ones, and so finds less than a paired test.

    Args:
        old: right items and all items.
        new: the same.
    """
    if not old[1] or not new[1]:
        return None
    table = [[right, total - right] for right, total in (old, new)]
    p_value = float(bench_library("scipy.stats").fisher_exact(table)[1])
    return TestedDifference("Fisher, not paired", min(old[1], new[1]), p_value, None, p_value < 1 - LEVEL)


def _coin(num_won: int, num_lost: int) -> float:
    changed = num_won + num_lost
    return float(bench_library("scipy.stats").binomtest(num_won, changed).pvalue) if changed else 1.0
