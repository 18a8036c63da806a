"""The leaderboard as Markdown and as one HTML file, from the same cells."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from audiollm.benchmarks.harness.page import markdown_text, render
from audiollm.data.files.atomic import atomic_write

from .board import Leaderboard
from .published import Figure
from .rows import LeaderboardRow, LeaderboardTable, conditions_key, marks_of
from .traces import Trace

TITLE = "Leaderboard"
INTRODUCTION = (
    "Rows of ours, guesses and published figures side by side. The letter behind a figure says under which conditions "
    "it was measured; only figures with the same letter were measured alike. What sources do not say is shown as "
    "not stated, and does not compare with anything."
)
NOT_TRACEABLE = "NOT TRACEABLE"
_SHOWN_HASH = 12


@dataclass(frozen=True)
class Cell:
    """Plain text, as a link if there is something to link to."""

    text: str
    link: str | None = None

    @property
    def markdown(self) -> str:
        """The cell as Markdown; a space before the text stays, so that it can follow another cell."""
        lead = " " if self.text.startswith(" ") else ""
        shown = markdown_text(self.text)
        return lead + (shown if self.link is None else f"[{shown}]({self.link})")


def write_pages(board: Leaderboard, output: str | os.PathLike[str]) -> list[Path]:
    """Writes ``<output>.md`` and ``<output>.html``; links are relative to their folder.

    Args:
        board: what to show.
        output: path without ending; one that ends in .md or .html loses it.
    """
    paths = page_paths(output)
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, (markdown_page(board, folder), html_page(board, folder)), strict=True):
        with atomic_write(path) as file:
            file.write(text)
    return paths


def page_paths(output: str | os.PathLike[str]) -> list[Path]:
    """The two files of a page, Markdown and HTML; ``output`` as for `write_pages`."""
    base = Path(re.sub(r"\.(md|html?)$", "", os.fspath(output)))
    return [base.with_name(base.name + ending) for ending in (".md", ".html")]


def markdown_page(board: Leaderboard, folder: Path) -> str:
    """The page as Markdown.

    Args:
        board: what to show.
        folder: where the page will be, which links are relative to.
    """
    return render(Path(__file__).with_name("page.md.jinja"), **_values(board, folder))


def html_page(board: Leaderboard, folder: Path) -> str:
    """The page as one HTML file; arguments as for `markdown_page`."""
    return render(Path(__file__).with_name("page.html.jinja"), **_values(board, folder))


def _values(board: Leaderboard, folder: Path) -> dict[str, Any]:
    """What both templates show."""
    tables = [
        {
            "title": table.title,
            "remarks": [text for text in (table.unit and f"Figures: {table.unit}.", table.note) if text],
            "head": head,
            "rows": rows,
            "legend": legend(table),
            "traces": _trace_lines(table, folder),
        }
        for table in board.tables
        for head, rows in [_head_and_rows(table, folder)]
    ]
    return {"title": TITLE, "introduction": INTRODUCTION, "tables": tables, "files": _file_lines(board)}


def legend(table: LeaderboardTable) -> list[str]:
    """What each letter of a table stands for."""
    lines = []
    for conditions, mark in marks_of(table.rows).items():
        told = "; ".join(f"{name}: {value}" for name, value in conditions if name != "kind")
        lines.append(f"[{mark}] {told or 'no conditions'}")
    return lines


def figure_text(value: Figure) -> str:
    """A figure with the digits that sources print; a range as two."""
    if value is None:
        return "–"
    if isinstance(value, tuple):
        return "–".join(map(figure_text, value))
    rounded = round(value, 2 if abs(value) >= 1 else 4)
    # `g` drops trailing zeros as sources do, but keeps six digits at most.
    return f"{rounded:g}" if abs(rounded) < 100_000 else f"{rounded:.0f}"


def _head_and_rows(table: LeaderboardTable, folder: Path) -> tuple[list[str], list[list[Cell]]]:
    """Names of the columns and the cells; columns of facts that no row has are left out."""
    facts = list(dict.fromkeys(name for row in table.rows for name in row.facts if row.facts[name]))
    shown_conditions = [
        name
        for name in ("grading", "prompt", "data")
        if any(name in row.conditions for row in table.rows if row.origin == "ours")
    ]
    head = ["model", "whose", *table.columns, *facts, *shown_conditions, "source", "note"]
    marks = marks_of(table.rows)
    lines = []
    for row in table.rows:
        mark = marks[conditions_key(row)]
        lines.append(
            [
                Cell(row.model),
                Cell(row.origin),
                *(Cell(_marked(row.figures.get(column), mark)) for column in table.columns),
                *(Cell(row.facts.get(name, "")) for name in facts),
                *(Cell(row.conditions.get(name, "")) for name in shown_conditions),
                _source_cell(row, folder),
                Cell("; ".join(text for text in (_problems(row), row.note) if text)),
            ]
        )
    return head, lines


def _marked(value: Figure, mark: str) -> str:
    return "–" if value is None else f"{figure_text(value)} [{mark}]"


def _problems(row: LeaderboardRow) -> str:
    problems = list(dict.fromkeys(trace.problem for trace in row.traces if trace.problem is not None))
    return f"{NOT_TRACEABLE}: {'; '.join(problems)}" if problems else ""


def _source_cell(row: LeaderboardRow, folder: Path) -> Cell:
    for trace in row.traces:
        if trace.path is not None and trace.problem is None:
            return _trace_cell(trace, folder)
    return Cell(row.source)


def _trace_cell(trace: Trace, folder: Path) -> Cell:
    assert trace.path is not None
    place = Path(os.path.relpath(trace.path, folder)).as_posix()
    return Cell(f"{place} ({(trace.sha256 or '')[:_SHOWN_HASH]})", quote(place))


def _trace_lines(table: LeaderboardTable, folder: Path) -> list[list[Cell]]:
    """A line for each file of predictions, with its whole hash."""
    lines: dict[str, list[Cell]] = {}
    for row in table.rows:
        for trace in row.traces:
            if trace.path is not None and trace.problem is None:
                place = Path(os.path.relpath(trace.path, folder)).as_posix()
                lines[place] = [Cell(place, quote(place)), Cell(f" sha256 {trace.sha256}")]
            elif trace.problem is not None:
                key = f"{row.source}: {trace.problem}"
                recorded = f", scored with sha256 {trace.sha256}" if trace.sha256 else ""
                lines[key] = [Cell(f"{NOT_TRACEABLE}: {row.model}, {row.source}: {trace.problem}{recorded}")]
    return list(lines.values())


def _file_lines(board: Leaderboard) -> list[str]:
    lines = [f"{board.num_results:,} results below {board.root.name or board.root} are shown."]
    if board.parts:
        lines.append(f"{len(board.parts):,} files are parts of runs and hold no figures.")
    lines += [f"Not shown: {_below(file.path, board.root)}: {file.reason}" for file in board.unread]
    return lines


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name
