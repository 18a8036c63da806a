"""The demo's report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile as sf
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend must be chosen first
from matplotlib.figure import Figure


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
    attribution: str = ""


def write_report(report: DemoReport, path: Path) -> None:
    """Writes ``path`` (HTML) and each figure beside it as PNG."""
    figures = {
        "What the tokenizer hears": hearing_figure(report.hearing),
        "Loss": loss_figure(report.train_losses, report.held_out_losses),
    }
    sections = []
    for name, figure in figures.items():
        png = to_png(figure)
        (path.parent / f"{name.lower().replace(' ', '_')}.png").write_bytes(png)
        image = base64.b64encode(png).decode()
        sections.append(
            f'<h2>{html.escape(name)}</h2><img alt="{html.escape(name)}" src="data:image/png;base64,{image}">'
        )
    hearing = report.hearing
    question = (
        f"<h2>A question about a recording it never heard</h2><p><b>{html.escape(hearing.title)}</b></p>"
        f'<audio controls src="data:audio/ogg;base64,{to_ogg(hearing.waveform, hearing.sample_rate)}"></audio>'
        f"<p>Question: {html.escape(hearing.question)}<br>Answer: <b>{html.escape(hearing.answer)}</b>"
        f"<br>Truth: {html.escape(hearing.truth)}</p>"
    )
    facts = [{"": name, " ": value} for name, value in report.facts.items()]
    body = [
        f"<h1>{html.escape(report.title)}</h1>",
        html_table(facts),
        "<h2>Accuracy on held-out clips</h2>",
        html_table(report.scores),
        question,
        *sections,
        "<h2>Some held-out answers</h2>",
        html_table(report.samples),
        f"<h2>Recordings</h2><p>{html.escape(report.attribution)}</p>",
    ]
    page = PAGE.replace("@title", html.escape(report.title)).replace("@body", "\n".join(body))
    path.write_text(page, encoding="utf-8")


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@title</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border-bottom: 1px solid #ddd; padding: .3rem .8rem;
text-align: left; vertical-align: top } img { max-width: 100% } audio { width: 100% }
</style></head><body>
@body
</body></html>
"""


def hearing_figure(hearing: Hearing) -> Figure:
    """Waveform, log-mel features, codes and gate over the same seconds."""
    rows = 3 if hearing.gate is None else 4
    figure, axes = plt.subplots(rows, 1, figsize=(10, 2 * rows), sharex=True, constrained_layout=True)
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
    figure, axes = plt.subplots(figsize=(10, 3.5), constrained_layout=True)
    axes.plot(*zip(*train, strict=True), linewidth=0.8, label="train")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held out")
    axes.set_xlabel("update")
    axes.set_ylabel("nats per answer token")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def to_ogg(waveform: Tensor, sample_rate: int) -> str:
    """Base64 of an Ogg Vorbis file, which browsers play."""
    buffer = io.BytesIO()
    sf.write(buffer, waveform.numpy(), sample_rate, format="OGG", subtype="VORBIS")
    return base64.b64encode(buffer.getvalue()).decode()


def html_table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "<p>nothing to show</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    lines = ["".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) for row in rows]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
