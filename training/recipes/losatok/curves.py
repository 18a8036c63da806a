"""Convergence of the transformers as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {"latents": "tab:blue", "mel": "tab:orange", "features": "tab:green"}
STYLES = ("-", "--", ":", "-.")
Point = Mapping[str, Any]


def curves_figure(dit: Mapping[str, Any], names: Mapping[str, str], reader: str) -> Figure:
    """Loss, distance and told classes over updates: lines are means over seeds, their surroundings all that was.

    Args:
        dit: figures by space and width, then by seed.
        names: of the spaces.
        reader: the probe that is shown.
    """
    one = next(iter(next(iter(dit.values())).values()))
    tasks = list(one["curve"][0]["heard"]["probes"])
    panels: dict[str, Callable[[Point], float]] = {
        "loss over that of a linear reader": lambda point: point["relative_loss"],
        "distance of what is heard": lambda point: point["heard"]["distance"],
        **{f"{task}: told of what is heard (%)": _told(task, reader) for task in tasks},
    }
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    FigureCanvasAgg(figure)
    widths = sorted({int(name.split("/")[1]) for name in dit})
    for axes, (title, value) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for name, by_seed in dit.items():
            space, width = name.split("/")
            style = STYLES[widths.index(int(width)) % len(STYLES)]
            _line(axes, by_seed, value, f"{names[space]}, width {width}", COLOURS[space], style)
        axes.set_title(title)
        axes.set_xlabel("updates")
    figure.axes[0].legend(fontsize="small")
    return figure


def _told(task: str, reader: str) -> Callable[[Point], float]:
    return lambda point: 100 * float(point["heard"]["probes"][task][reader])


def _line(
    axes: Axes, by_seed: Mapping[str, Any], value: Callable[[Point], float], label: str, colour: str, style: str
) -> None:
    curves = [own["curve"] for own in by_seed.values()]
    steps = [point["step"] for point in curves[0]]
    values = np.array([[value(point) for point in curve] for curve in curves])
    axes.plot(steps, values.mean(axis=0), style, color=colour, label=label, marker="o", markersize=3)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12)
