"""Metrics as local ``evaluate`` modules: loaded by path, without a network.

``load_metric("wer")`` is ``evaluate.load(<this folder>/wer)``; the folders also work with ``evaluate.load`` directly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def available_metrics() -> list[str]:
    """Names that :func:`load_metric` knows."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/*.py") if path.stem == path.parent.name)


def load_metric(name: str) -> Any:
    """Loads a metric of this folder.

    Args:
        name: one of :func:`available_metrics`.

    Returns:
        An ``evaluate.Metric``: call ``compute(predictions=…, references=…)``.

    Raises:
        ValueError: if there is no such metric.
    """
    if name not in available_metrics():
        raise ValueError(f"no metric {name!r}; there are {', '.join(available_metrics())}")
    import evaluate  # takes seconds, and only scoring needs it

    return evaluate.load(str(_FOLDER / name), module_type="metric")
