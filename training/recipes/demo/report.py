"""The demo's report: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from audiollm.benchmarks.harness.page import picture_address, png, render, sound_address


@dataclass
class Hearing:
    """What the tokenizer makes of one recording."""

    title: str
    waveform: Tensor  # float32 [N] in [-1, 1]
    sample_rate: int
    log_mel: Tensor  # [M, F]
    codes: Tensor  # int64 [T]
    gate: Tensor | None  # mean gate of each frame, [T], in (0, 1)
    frame_rate: float
    question: str
    answer: str
    truth: str


@dataclass
class DemoReport:
    """Everything the page shows."""

    title: str
    facts: dict[str, str]
    scores: list[dict[str, Any]]  # rows of the accuracy table
    train_losses: list[tuple[int, float]]  # (update, nats per target token)
    held_out_losses: list[tuple[int, float]]
    hearing: Hearing
    samples: list[dict[str, str]] = field(default_factory=list)
    mini_samples: list[dict[str, str]] = field(default_factory=list)  # of the embedded model, before any training
    commands: list[dict[str, str]] = field(default_factory=list)  # said, and understood before and after fine-tuning
    word_error_rates: dict[str, float] = field(default_factory=dict)  # of these, "before" and "after"
    attribution: str = ""


def write_report(report: DemoReport, path: Path) -> None:
    """Writes ``path`` (HTML) and each figure beside it as PNG."""
    figures = {
        "What the tokenizer hears": hearing_figure(report.hearing),
        "Loss": loss_figure(report.train_losses, report.held_out_losses),
    }
    pictures = {name: png(figure) for name, figure in figures.items()}
    for name, picture in pictures.items():
        (path.parent / f"{name.lower().replace(' ', '_')}.png").write_bytes(picture)
    page = render(
        Path(__file__).with_name("demo.html.jinja"),
        report=report,
        sound=sound_address(report.hearing.waveform, report.hearing.sample_rate),
        pictures={name: picture_address(picture) for name, picture in pictures.items()},
    )
    path.write_text(page, encoding="utf-8")


def hearing_figure(hearing: Hearing) -> Figure:
    """Waveform, log-mel features, codes and gate over the same seconds."""
    rows = 3 if hearing.gate is None else 4
    figure = Figure(figsize=(10, 2 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True)
    seconds = len(hearing.waveform) / hearing.sample_rate
    axes[0].plot(np.arange(len(hearing.waveform)) / hearing.sample_rate, hearing.waveform.numpy(), linewidth=0.4)
    axes[0].set_ylabel("waveform")
    axes[1].imshow(
        hearing.log_mel.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, len(hearing.log_mel)),
        cmap="magma",
    )
    axes[1].set_ylabel("mel bin")
    frame_seconds = (np.arange(len(hearing.codes)) + 0.5) / hearing.frame_rate
    axes[2].plot(frame_seconds, hearing.codes.numpy(), ".", markersize=4)
    axes[2].set_ylabel("code")
    if hearing.gate is not None:
        axes[3].plot(frame_seconds, hearing.gate.numpy())
        axes[3].set_ylabel("mean SAE gate")
        axes[3].set_ylim(0, 1)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(0, seconds)
    return figure


def loss_figure(train: Sequence[tuple[int, float]], held_out: Sequence[tuple[int, float]]) -> Figure:
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*train, strict=True), linewidth=0.8, label="train")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held out")
    axes.set_xlabel("update")
    axes.set_ylabel("nats per answer token")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
