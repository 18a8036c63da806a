"""Pictures of a tokenizer's training: how evenly codes are used, and how codebook and gate developed."""
# Shapes: V codebook entries.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from audiollm.data.records import SOUND_TYPES
from audiollm.training.loop.record import METRICS_NAME, read_metrics

PLOTS_FOLDER = "plots"
SOUND_TYPE_COLOURS = dict(zip(SOUND_TYPES, ("tab:blue", "tab:orange", "tab:green", "tab:red"), strict=True))
CODEBOOK_PANELS = {
    "code_usage": "codes in use (share)",
    "perplexity": "perplexity",
    "relative_quantization_error": "relative quantization error",
    "num_restarted": "restarted codes",
    "unanimity": "bits on which all voters agree (share)",
}


def draw_run(folder: Path) -> list[Path]:
    """Draws what a run's ``metrics.jsonl`` holds so far.

    Args:
        folder: the run.

    Returns:
        The PNGs in its folder ``plots``: ``training.png``, and ``gates.png`` where there is a gate.
    """
    lines = read_metrics(folder / METRICS_NAME)
    plots = folder / PLOTS_FOLDER
    plots.mkdir(parents=True, exist_ok=True)
    paths = [plots / "training.png"]
    draw_training(paths[0], lines)
    if any(line.get("gate_means") for line in lines):
        paths.append(plots / "gates.png")
        draw_gates(paths[-1], lines)
    return paths


def draw_code_usage(path: Path, counts_V: Tensor, *, title: str = "") -> None:
    """Draws how often each code occurs, the most frequent first, beside what even use would be.

    Args:
        path: the PNG.
        counts_V: occurrences of each code, ``[V]``.
        title: over the picture.
    """
    counts = np.sort(counts_V.double().cpu().numpy())[::-1]
    num_active = int((counts > 0).sum())
    figure, [axes] = _figure(1)
    axes.step(np.arange(1, num_active + 1), counts[:num_active], where="mid", linewidth=1)
    axes.axhline(counts.sum() / len(counts), color="grey", linewidth=0.8, linestyle="--", label="even use")
    axes.axvline(len(counts), color="grey", linewidth=0.8, label=f"{len(counts)} entries")
    if num_active:
        axes.set_yscale("log")
    axes.set_xscale("log")
    axes.set_xlabel("rank of the code")
    axes.set_ylabel("occurrences")
    axes.set_title(f"{title}: {num_active} of {len(counts)} codes" if title else f"{num_active} of {len(counts)} codes")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def draw_training(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws losses, use of the codebook and quantization error over the updates.

    Args:
        path: the PNG.
        lines: of ``metrics.jsonl``. Quantities that they do not hold get no panel; alarms become vertical lines.
    """
    panels = [name for name in CODEBOOK_PANELS if any(name in line for line in lines)]
    figure, [losses, *others] = _figure(1 + len(panels))
    _plot(losses, lines, "train", "loss", label="training", linewidth=0.6)
    for task in _names(lines, "text_losses"):
        _plot(losses, lines, "eval", "text_losses", task, label=f"held out: {task}", marker=".")
    losses.set_title("loss (nats per token)")
    for axes, name in zip(others, panels, strict=True):
        _plot(axes, lines, "train", name, label="training", linewidth=0.6)
        _plot(axes, lines, "eval", name, label="held out", marker=".")
        axes.set_title(CODEBOOK_PANELS[name])
    for axes in (losses, *others):
        for line in lines:
            if line["event"] == "alarm":
                axes.axvline(line["step"], color="tab:red", linewidth=0.6, linestyle=":")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def draw_gates(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws the mean gate of each sound type: of the updates as lines, on held-out clips as dots.

    Args:
        path: the PNG.
        lines: of ``metrics.jsonl``.
    """
    figure, [axes] = _figure(1)
    for sound_type in _names(lines, "gate_means"):
        colour = SOUND_TYPE_COLOURS.get(sound_type)
        _plot(axes, lines, "train", "gate_means", sound_type, color=colour, linewidth=0.6, label=sound_type)
        _plot(axes, lines, "eval", "gate_means", sound_type, color=colour, marker="o", linestyle="none", markersize=4)
    axes.set_title("mean gate (lines: training, dots: held out)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def _figure(num_panels: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side, drawn without a display and without pyplot's global state."""
    figure = Figure(figsize=(6 if num_panels == 1 else 4 * num_panels, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, num_panels, squeeze=False)[0])


def _plot(
    axes: Axes, lines: Sequence[Mapping[str, Any]], event: str, name: str, inner: str | None = None, **style: Any
) -> None:
    """Plots one quantity of all lines of an event that have it."""
    points = []
    for line in lines:
        value = line.get(name) if inner is None else line.get(name, {}).get(inner)
        if line["event"] == event and value is not None:
            points.append((line["step"], value))
    if points:
        axes.plot(*zip(*points, strict=True), **style)
    axes.set_xlabel("update")


def _names(lines: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The keys of a quantity by task or sound type, in the order in which they come."""
    return list(dict.fromkeys(key for line in lines for key in line.get(name, {})))
