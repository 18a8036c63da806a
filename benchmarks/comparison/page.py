"""A study as Markdown, as one HTML file that needs nothing beside it, and as JSON; all of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.page import markdown_text, render
from audiollm.benchmarks.leaderboard.published import Figure, PublishedTable
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import json_text
from audiollm.facts import finite

from .cells import Cell
from .plots import figure_plots, sound_examples
from .published import tables_beside
from .running import MeasuredStudy
from .table import (
    MISSING,
    TableCell,
    TableRow,
    TrainedTable,
    columns_of,
    reasons_of,
    study_rows,
    trained_tables,
)

MARKDOWN, HTML, JSON = "comparison.md", "comparison.html", "comparison.json"
INTRODUCTION = (
    "Each row is a figure, each column a tokenizer; arrows say which end is good, and the best of a row is bold. "
    f"Figures are of the recordings named, all of this run. {MISSING} has its reason below the table."
)
PUBLISHED_INTRODUCTION = (
    "What others published, of their own data, models and judges: for orientation, and not measured like the figures "
    "above."
)
_ARROWS = {"more": " ↑", "less": " ↓", None: ""}
_HERE = Path(__file__).parent


def write_pages(measured: MeasuredStudy, trained: Mapping[Cell, Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes ``comparison.md``, ``comparison.html`` and ``comparison.json``; each appears whole or not at all.

    Args:
        measured: a study and its cells.
        trained: figures of an LLM on each tokenizer, by cell; none where none was trained.
        folder: for the pages.
    """
    rows, tables = study_rows(measured), trained_tables(measured, trained)
    published = tables_beside([*measured.study.measures, *(table.part for table in tables)])
    values = {
        "title": measured.study.title,
        "introduction": INTRODUCTION,
        "sections": [_study_section(measured, rows), *(_trained_section(table) for table in tables)],
        "published_introduction": PUBLISHED_INTRODUCTION,
        "published": [_published_section(table) for table in published],
        "facts": _facts(measured),
    }
    pictures = {"plots": figure_plots(measured, rows, tables), "examples": sound_examples(measured)}
    texts = {
        MARKDOWN: render(_HERE / "page.md.jinja", **values),
        HTML: render(_HERE / "page.html.jinja", **values, **pictures),
        JSON: json_text(finite(_document(measured, trained, rows, tables, published))) + "\n",
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text)
    return [folder / name for name in texts]


# --- sections: head, rows of cells that know whether they are best, and remarks ---------------------------------------


def _study_section(measured: MeasuredStudy, rows: Sequence[TableRow]) -> dict[str, Any]:
    columns = columns_of(measured)
    lines = [
        [
            _plain(row.measure if row.data is None else f"{row.measure}, {row.data}"),
            _plain(row.title + _ARROWS[row.better]),
        ]
        + [_shown(row.cells[name]) for name in columns]
        for row in rows
    ]
    reasons = reasons_of(pair for row in rows for pair in row.cells.items())
    return {
        "title": "Tokenizers",
        "head": ["measure", "figure", *columns],
        "rows": lines,
        "remarks": [f"{name}: {'; '.join(why)}" for name, why in reasons.items()],
    }


def _trained_section(table: TrainedTable) -> dict[str, Any]:
    lines = [[_plain(name), *(_shown(row[column]) for column in table.columns)] for name, row in table.rows.items()]
    reasons = reasons_of((name, cell) for name, row in table.rows.items() for cell in row.values())
    told = [f"{name}: {'; '.join(why)}" for name, why in reasons.items()]
    return {
        "title": table.title,
        "head": ["tokenizer", *table.columns],
        "rows": lines,
        "remarks": [*table.notes, *told],
    }


def _published_section(table: PublishedTable) -> dict[str, Any]:
    lines = [
        [_plain(row.model), *(_plain(_figure(row.values[column])) for column in table.columns), _plain(row.source)]
        for row in table.rows
    ]
    unit = f" ({table.unit})" if table.unit else ""
    notes = [f"{row.model}: {row.note}" for row in table.rows if row.note]
    return {
        "title": f"{table.title}{unit}",
        "head": ["tokenizer", *table.columns, "source"],
        "rows": lines,
        "remarks": [note for note in (table.note, *notes) if note],
    }


def _plain(text: str) -> dict[str, Any]:
    return {"text": text, "markdown": markdown_text(text), "is_best": False}


def _shown(cell: TableCell) -> dict[str, Any]:
    escaped = markdown_text(cell.shown)
    return {"text": cell.shown, "markdown": f"**{escaped}**" if cell.is_best else escaped, "is_best": cell.is_best}


def _figure(value: Figure) -> str:
    if value is None:
        return MISSING
    return f"{value[0]:g} to {value[1]:g}" if isinstance(value, tuple) else f"{value:g}"


def _facts(measured: MeasuredStudy) -> list[str]:
    """What must be known of the run."""
    facts = [
        f"{name}: fingerprint {one.fingerprint[:12]}; licence of the weights: {one.facts['licence']}"
        for name, one in measured.tokenizers.items()
    ]
    for name, data in measured.study.data.items():
        chosen = [
            f"{key} {value}"
            for key in ("split", "sound_type", "language", "max_clips")
            if (value := getattr(data, key)) is not None
        ]
        facts.append(f"{name}: {Path(data.path).name}{', ' + ', '.join(chosen) if chosen else ''}")
    if measured.machine is not None:
        facts.append("speed: " + ", ".join(f"{key} {value}" for key, value in measured.machine.items()))
    return facts


# --- JSON -------------------------------------------------------------------------------------------------------------


def _document(
    measured: MeasuredStudy,
    trained: Mapping[Cell, Mapping[str, Any]],
    rows: Sequence[TableRow],
    tables: Sequence[TrainedTable],
    published: Sequence[PublishedTable],
) -> dict[str, Any]:
    return {
        "title": measured.study.title,
        "study": _without_folders(asdict(measured.study)),
        "machine": measured.machine,
        "columns": columns_of(measured),
        "tokenizers": {name: asdict(one) for name, one in measured.tokenizers.items()},
        "rows": [asdict(row) for row in rows],
        "trained": [asdict(table) for table in tables],
        "published": [asdict(table) for table in published],
        "cells": [{**vars(cell), "figures": one} for cell, one in {**measured.figures, **trained}.items()],
    }


def _without_folders(value: Any) -> Any:
    """Settings without where things lie on this machine: pages are passed on."""
    if isinstance(value, dict):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
