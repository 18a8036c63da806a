"""Pictures of a study: figures over bit rate, how evenly codes are used, and what sounds look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from audiollm.benchmarks.harness.page import picture_address, png, sound_address
from audiollm.benchmarks.harness.pictures import draw_clip
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.waveforms import resample
from audiollm.tokenizer.signal.mel import MelConfig

from .measures import sounds_of
from .running import RECONSTRUCTION, MeasuredStudy
from .study import ORIGINAL
from .table import TableRow, TrainedTable

SHOWN_CLIPS = 2
SHOWN_SECONDS = 10.0
# What is drawn over the bit rate: of these measures every figure that has a good end and a number for two tokenizers.
_OVER_BITRATE = ("WER (%", "similarity of voice", "MOS predicted", "STOI", "purity", "logistic probe on histogram")


def figure_plots(measured: MeasuredStudy, rows: Sequence[TableRow], trained: Sequence[TrainedTable]) -> dict[str, str]:
    """Pictures by title, as addresses that hold them."""
    plots = {}
    bitrates = {
        name: one.facts["bitrate_bps"]
        for name, one in measured.tokenizers.items()
        if one.facts["bitrate_bps"] is not None
    }
    for row in rows:
        if row.better is not None and row.title.startswith(_OVER_BITRATE):
            values = {
                name: cell.value
                for name, cell in row.cells.items()
                if isinstance(cell.value, (int, float)) and name in (ORIGINAL, *bitrates)
            }
            if len(values.keys() & bitrates.keys()) > 1:
                title = row.title if row.data is None else f"{row.title}, {row.data}"
                plots[f"{title} over bit rate"] = _scatter(title, bitrates, values)
    for data in dict.fromkeys(cell.data for cell in measured.figures if cell.measure == "codes" and cell.data):
        curves = {
            cell.tokenizer: one["coverage"]
            for cell, one in measured.figures.items()
            if (cell.measure, cell.data) == ("codes", data) and "coverage" in one
        }
        if curves:
            plots[f"use of codes, {data}"] = _curves(curves)
    for table in trained:
        plots |= _losses(table)
    return plots


def _new_figure(width: float = 6.0) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _scatter(title: str, bitrates: Mapping[str, float], values: Mapping[str, Any]) -> str:
    figure, axes = _new_figure()
    for name, value in values.items():
        if name == ORIGINAL:
            axes.axhline(value, color="grey", linestyle=":", label=ORIGINAL)
            continue
        axes.plot(bitrates[name], value, "o")
        axes.annotate(name, (bitrates[name], value), textcoords="offset points", xytext=(5, 4), fontsize=8)
    if ORIGINAL in values:
        axes.legend(fontsize=8)
    axes.set_xscale("log")
    axes.margins(0.2)
    axes.set_xlabel("bit/s")
    axes.set_ylabel(title, fontsize=8)
    return picture_address(png(figure))


def _curves(curves: Mapping[str, Sequence[float]]) -> str:
    figure, axes = _new_figure()
    for name, shares in curves.items():
        axes.plot(range(len(shares) + 1), [0.0, *shares], label=name, linewidth=1.2)
    axes.set_xlabel("% of the codes, commonest first")
    axes.set_ylabel("share of all tokens")
    axes.legend(fontsize=8)
    return picture_address(png(figure))


def _losses(table: TrainedTable) -> dict[str, str]:
    title = next((name for name in table.columns if name.startswith("held-out loss")), None)
    if title is None or "compare" in title:
        return {}
    cells = {name: row[title] for name, row in table.rows.items() if isinstance(row[title].value, (int, float))}
    if not cells:
        return {}
    figure, axes = _new_figure()
    axes.errorbar(
        range(len(cells)), [cell.value for cell in cells.values()], [cell.spread or 0.0 for cell in cells.values()],
        fmt="o", capsize=4,
    )  # fmt: skip
    axes.set_xticks(range(len(cells)), list(cells), rotation=20, ha="right", fontsize=8)
    axes.set_ylabel(title, fontsize=8)
    axes.margins(0.2)
    return {f"{table.part}: {title}": picture_address(png(figure))}


# --- sounds -----------------------------------------------------------------------------------------------------------


def sound_examples(measured: MeasuredStudy) -> list[dict[str, Any]]:
    """Some recordings through every tokenizer: title, picture and players, as addresses that hold them."""
    examples = []
    settings = measured.study.measures.get(RECONSTRUCTION)
    for data in () if settings is None else settings.data:
        originals = sorted(sounds_of(measured.folder, ORIGINAL, data).glob("*.wav"))
        for original in originals[:: max(1, len(originals) // SHOWN_CLIPS)][:SHOWN_CLIPS]:
            versions = {
                name: _beginning(path)
                for name in (ORIGINAL, *measured.tokenizers)
                if (path := sounds_of(measured.folder, name, data) / original.name).is_file()
            }
            examples.append(
                {
                    "title": f"{data}, recording {int(original.stem) + 1}",
                    "picture": _spectrograms(versions),
                    "players": {name: sound_address(*version) for name, version in versions.items()},
                }
            )
    return examples


def _beginning(path: Path) -> tuple[Tensor, int]:
    waveform, sample_rate = load_audio(path)
    return waveform[: round(SHOWN_SECONDS * sample_rate)], sample_rate


def _spectrograms(versions: Mapping[str, tuple[Tensor, int]]) -> str:
    mel = MelConfig()
    shown = {}
    for name, (waveform, sample_rate) in versions.items():
        shown[name] = resample(waveform, sample_rate, mel.sample_rate)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "versions.png"
        draw_clip(path, "waveforms and mel spectrograms", shown, mel)
        return picture_address(path.read_bytes())
