"""Pictures of a LoSATok's evaluations: directions and dimensions in use, and which moments resemble which."""
# Shapes: T frames.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor


def draw_dimensions(path: Path, kl: Sequence[float], below: float) -> None:
    """Draws the divergence of each latent dimension, the largest first.

    Args:
        path: the PNG.
        kl: mean divergence of each dimension, in nats.
        below: what counts as collapsed.
    """
    figure, [axes] = _figure(1)
    values = np.maximum(np.sort(np.asarray(kl))[::-1], 1e-6)
    axes.bar(np.arange(1, len(values) + 1), values, width=1.0)
    axes.axhline(max(below, 1e-6), color="tab:red", linewidth=0.8, linestyle="--", label="collapsed below")
    axes.set_yscale("log")
    axes.set_xlabel("dimension, by divergence")
    axes.set_ylabel("KL (nats)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def draw_spectra(path: Path, spectra: Mapping[str, Sequence[float]]) -> None:
    """Draws shares of variance by main direction, the largest first.

    Args:
        path: the PNG.
        spectra: by name, what `spectrum` gave.
    """
    figure, [axes] = _figure(1)
    for name, shares in spectra.items():
        axes.plot(np.arange(1, len(shares) + 1), np.maximum(shares, 1e-9), label=name, linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("main direction")
    axes.set_ylabel("share of the variance")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def draw_relations(path: Path, features: Mapping[str, Tensor]) -> None:
    """Draws the cosines between all frames of a clip, ``[T, T]``, one picture per kind of features.

    Args:
        path: the PNG.
        features: by name, ``[T, any]``.
    """
    figure, panels = _figure(len(features))
    for axes, (name, one) in zip(panels, features.items(), strict=True):
        directions = F.normalize(one.float().cpu(), dim=-1)
        axes.imshow((directions @ directions.T).numpy(), vmin=-1, vmax=1, cmap="coolwarm", interpolation="nearest")
        axes.set_title(name)
        axes.set_xlabel("frame")
    figure.savefig(path, dpi=100)


def _figure(num_panels: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side, drawn without a display and without pyplot's global state."""
    figure = Figure(figsize=(6 if num_panels == 1 else 4 * num_panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, num_panels, squeeze=False)[0])
