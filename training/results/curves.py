"""Curves of a run: what its lines of metrics hold, as a table for spreadsheets and as a picture.

Both are made anew of all lines each time, so they never say anything else than ``metrics.jsonl``: after a run was
killed and resumed no row is missing or there twice.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from audiollm.data.files.atomic import atomic_write

from .best import BestEvaluation
from .figures import flat_numbers

CURVES_TABLE, CURVES_PICTURE = "curves.csv", "curves.png"
MAX_POINTS = 2000  # of a curve in the picture; more are averaged
FIRST_COLUMNS = ("event", "step", "epoch", "loss")
_THROUGHPUT = "_per_second"
Points = list[tuple[int, float]]


def write_curves(folder: Path, lines: Sequence[Mapping[str, Any]], best: BestEvaluation | None = None) -> None:
    """Writes ``curves.csv`` and ``curves.png``; each takes the place of an older one as a whole.

    Args:
        folder: the run's.
        lines: of its ``metrics.jsonl``.
        best: the evaluation to mark.
    """
    rows = [line for line in lines if line["event"] in ("train", "eval")]
    _write_table(folder / CURVES_TABLE, rows)
    with atomic_write(folder / CURVES_PICTURE, "wb") as file:
        draw_curves(rows, best).savefig(file, format="png", dpi=100)


def _write_table(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    rows = [{"event": line["event"], "step": line["step"], **flat_numbers(line)} for line in lines]
    found = dict.fromkeys(name for row in rows for name in row)
    columns = [*FIRST_COLUMNS, *(name for name in found if name not in FIRST_COLUMNS)]
    with atomic_write(path) as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def draw_curves(lines: Sequence[Mapping[str, Any]], best: BestEvaluation | None) -> Figure:
    """Draws loss, the deciding metric where it is another one, learning rate and throughput over the updates."""
    curves = _curves(lines)
    panels = [name for name in ("loss", best.metric if best else "loss") if name in curves]
    panels = [*dict.fromkeys(panels), *(name for name in ("learning rate", "throughput") if name in curves)]
    count = max(1, len(panels))
    figure = Figure(figsize=(6 if count == 1 else 4 * count, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, count, squeeze=False)[0], panels, strict=False):
        _draw_panel(axes, name, curves[name], best if best and best.metric == name else None)
    return figure


def _curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """Panel → label → points."""
    curves: dict[str, dict[str, Points]] = {}
    for line in lines:
        for name, value in flat_numbers(line).items():
            if name.startswith("learning_rate"):
                panel, label = "learning rate", name.partition("/")[2]
            elif name.endswith(_THROUGHPUT):
                panel, label = "throughput", name.removesuffix(_THROUGHPUT).replace("_", " ") + " per second"
            else:
                panel, label = name, "training" if line["event"] == "train" else "held out"
            curves.setdefault(panel, {}).setdefault(label, []).append((line["step"], value))
    return curves


def _draw_panel(axes: Axes, title: str, curves: Mapping[str, Points], best: BestEvaluation | None) -> None:
    for label, points in curves.items():
        style: dict[str, Any] = {"marker": "."} if label == "held out" or len(points) == 1 else {"linewidth": 0.8}
        axes.plot(*thinned(points), label=label, **style)
    if best is not None:
        axes.axvline(best.step, color="grey", linewidth=0.8, linestyle="--", label=f"best: {best}")
    axes.set_title(title.replace("_", " "))
    axes.set_xlabel("update")
    if any(axes.get_legend_handles_labels()[1]):
        axes.legend(fontsize="small")


def thinned(points: Points, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Updates and values of a curve, float64 ``[P]`` each; neighbours are averaged where there are too many."""
    table = np.asarray(points, dtype=np.float64)
    if len(table) > most:
        table = np.stack([part.mean(axis=0) for part in np.array_split(table, most)])
    return table[:, 0], table[:, 1]
