"""Rows of tables whose figures were measured with several seeds: mean ± sample standard deviation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Value = Callable[[Mapping[str, Any]], float]
"""Of one seed's figures."""
Column = tuple[str, str, Value]
"""Title, format, and the value."""


def row(names: Sequence[str], by_seed: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    """Names, of how many seeds, and figures."""
    return [*names, str(len(by_seed)), *(over_seeds(by_seed, form, value) for _, form, value in columns)]


def over_seeds(by_seed: Mapping[str, Mapping[str, Any]], form: str, value: Value) -> str:
    """A figure of all seeds; of one alone without spread."""
    values: Sequence[float] = [value(figures) for figures in by_seed.values()]
    mean = form.format(statistics.fmean(values))
    return mean if len(values) < 2 else f"{mean} ± {form.format(statistics.stdev(values))}"
