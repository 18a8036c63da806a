"""Pictures of a diffusion model's evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_times(path: Path, losses: Sequence[float]) -> None:
    """Draws the held-out loss by the time of the flow, in bins of equal size from 0 (noise) to 1.

    Args:
        path: the PNG.
        losses: of each bin.
    """
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 1 / len(losses)
    axes.bar([(index + 0.5) * width for index in range(len(losses))], losses, width=0.9 * width)
    axes.set_xlabel("time of the flow, from noise to latents")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=100)
