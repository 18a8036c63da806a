"""The numbers in a line of metrics, by name and as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from audiollm.facts import shown_value

# How much was looked at, which is no result.
_SIZES = ("step", "target_tokens", "seconds")


def flat_numbers(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in a line of metrics, those of inner objects as ``outer/inner``."""
    numbers: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            numbers |= flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            numbers[prefix + name] = value
    return numbers


def scores(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """What an evaluation's line has measured: its numbers without the sizes of what was looked at."""
    return {
        name: value
        for name, value in flat_numbers(evaluation).items()
        if name not in _SIZES and not name.startswith("num_") and math.isfinite(value)
    }


def told_scores(evaluation: Mapping[str, Any]) -> str:
    """An evaluation in one line, such as ``loss 0.52, wer 0.14``; inner objects are left to the file of metrics."""
    told = [f"{name} {shown_value(value)}" for name, value in scores(evaluation).items() if "/" not in name]
    return ", ".join(told) or "no figures"
