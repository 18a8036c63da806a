"""Metrics as local ``evaluate`` modules, which need no network.

``load_metric("wer")`` gives what ``evaluate.load(<this folder>/wer)`` gives, without its detour: ``evaluate`` copies a
module into a cache that all processes of a user share and imports the copy, which fails for every metric but those
already there once the cache has moved since the first import.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def available_metrics() -> list[str]:
    """Names that `load_metric` knows."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/*.py") if path.stem == path.parent.name)


def load_metric(name: str) -> Any:
    """Loads a metric of this folder.

    Args:
        name: one of `available_metrics`.

    Returns:
        An ``evaluate.Metric``: call ``compute(predictions=…, references=…)``.

    Raises:
        ValueError: if there is no such metric.
    """
    if name not in available_metrics():
        raise ValueError(f"no metric {name!r}; there are {', '.join(available_metrics())}")
    import evaluate  # takes seconds, and only scoring needs it

    module = import_module(f".{name}.{name}", __name__)
    [metric] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, evaluate.Metric) and value.__module__ == module.__name__
    ]
    return metric()
