"""Report of `make decoder`: one HTML file with the scores, the course of training, and clips to hear and see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from audiollm.benchmarks.harness.page import picture_address, png, render, sound_address
from audiollm.data.audio.reading import load_audio
from audiollm.training.decoder.validation import COPY_SYNTHESIS, DECODED, ORIGINAL, STREAMED
from audiollm.training.loop.record import METRICS_NAME, read_metrics

SYSTEMS = {
    ORIGINAL: "original",
    COPY_SYNTHESIS: "copy-synthesis (vocoder alone)",
    DECODED: "decoded from codes",
    STREAMED: "streamed",
}
SHOWN_CLIPS = 8


def write_report(folder: Path) -> None:
    """Writes ``report.html`` of a run's ``results.json``, ``validation/clips`` and ``*/metrics.jsonl``, and figures."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    losses = png(training_figure(folder))
    (folder / "training.png").write_bytes(losses)
    page = render(
        Path(__file__).with_name("decoder_report.html.jinja"),
        results=results,
        scores=score_rows(results["systems"]),
        losses=picture_address(losses),
        clips=[shown_clip(folder, number, clip) for number, clip in enumerate(results["clips"][:SHOWN_CLIPS])],
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def score_rows(systems: dict[str, dict[str, float | None]]) -> list[dict[str, Any]]:
    """One row per system: word error rate in percent, and distances to the original."""
    rows = []
    for name, scores in systems.items():
        row: dict[str, Any] = {"": SYSTEMS[name]}
        for metric in ("wer", "mel_distance", "mcd", "stoi", "pesq"):
            value = scores.get(metric)
            shown = "–" if value is None else f"{100 * value:.1f} %" if metric == "wer" else f"{value:.3f}"
            row[metric.replace("_", " ")] = shown
        rows.append(row)
    return rows


def training_figure(folder: Path) -> Figure:
    """Losses of both runs over their updates."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (model, key) in zip(axes, (("vocoder", "spectral"), ("flow", "loss")), strict=True):
        train = [line for line in read_metrics(folder / model / METRICS_NAME) if line["event"] == "train"]
        axis.plot([line["step"] for line in train], [line[key] for line in train], linewidth=0.6)
        axis.set_title(f"{model}: {key}")
        axis.set_xlabel("update")
        axis.set_yscale("log")
    return figure


def shown_clip(folder: Path, number: int, clip: dict[str, Any]) -> dict[str, Any]:
    """A clip's title, picture, sounds and transcripts, as the template names them."""
    (picture,) = (folder / "validation" / "clips").glob(f"{number:03d}_*.png")
    systems = [
        {
            "name": SYSTEMS[name],
            "sound": sound_address(*load_audio(picture.with_name(f"{picture.stem}.{name}.wav"))),
            "transcript": scores.get("transcript") or "",
        }
        for name, scores in clip["systems"].items()
    ]
    address = picture_address(picture.read_bytes())
    return {"id": clip["id"], "title": clip["text"] or clip["id"], "picture": address, "systems": systems}
