"""The leaderboard as Markdown and as one HTML file, from the same cells."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from audiollm.benchmarks.harness.page import page
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


def write_pages(board: Leaderboard, output: str | os.PathLike[str]) -> list[Path]:
    """Writes ``<output>.md`` and ``<output>.html``; links are relative to their folder.

    Args:
        board: what to show.
        output: path without ending; one that ends in .md or .html loses it.
    """
    base = Path(re.sub(r"\.(md|html?)$", "", os.fspath(output)))
    base.parent.mkdir(parents=True, exist_ok=True)
    texts = {".md": markdown_page(board, base.parent), ".html": html_leaderboard(board, base.parent)}
    paths = []
    for ending, text in texts.items():
        path = base.with_name(base.name + ending)
        with atomic_write(path) as file:
            file.write(text)
        paths.append(path)
    return paths


def markdown_page(board: Leaderboard, folder: Path) -> str:
    """The page as Markdown.

    Args:
        board: what to show.
        folder: where the page will be, which links are relative to.
    """
    parts = [f"# {TITLE}", INTRODUCTION]
    for table in board.tables:
        parts.append(f"## {_markdown(table.title)}")
        parts += [_markdown(text) for text in _remarks(table)]
        parts.append(_markdown_table(_cells(table, folder)))
        parts.append("\n".join(f"- {_markdown(line)}" for line in legend(table)))
        notes = _trace_lines(table, folder)
        if notes:
            parts.append("Where our figures come from:")
            parts.append("\n".join(f"- {''.join(map(_markdown_cell, line))}" for line in notes))
    parts.append("## Files")
    parts.append("\n".join(f"- {_markdown(line)}" for line in _file_lines(board)))
    return "\n\n".join(part for part in parts if part) + "\n"


def html_leaderboard(board: Leaderboard, folder: Path) -> str:
    """The page as one HTML file; arguments as for :func:`markdown_page`."""
    sections = [f"<p>{html.escape(INTRODUCTION)}</p>"]
    for table in board.tables:
        sections.append(f"<h2>{html.escape(table.title)}</h2>")
        sections += [f"<p>{html.escape(text)}</p>" for text in _remarks(table)]
        sections.append(_html_table(_cells(table, folder)))
        sections.append(_html_list([[Cell(line)] for line in legend(table)]))
        notes = _trace_lines(table, folder)
        if notes:
            sections.append("<p>Where our figures come from:</p>" + _html_list(notes))
    sections.append("<h2>Files</h2>" + _html_list([[Cell(line)] for line in _file_lines(board)]))
    return page(TITLE, sections)


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
    return f"{rounded:g}" if abs(rounded) < 100_000 else f"{rounded:.0f}"


def _remarks(table: LeaderboardTable) -> list[str]:
    return [text for text in (table.unit and f"Figures: {table.unit}.", table.note) if text]


def _cells(table: LeaderboardTable, folder: Path) -> list[list[Cell]]:
    """Head and rows; columns of facts that no row has are left out."""
    facts = list(dict.fromkeys(name for row in table.rows for name in row.facts if row.facts[name]))
    shown_conditions = [
        name
        for name in ("grading", "prompt", "data")
        if any(name in row.conditions for row in table.rows if row.origin == "ours")
    ]
    head = ["model", "whose", *table.columns, *facts, *shown_conditions, "source", "note"]
    marks = marks_of(table.rows)
    lines = [[Cell(name) for name in head]]
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
    return lines


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


def _markdown(text: str) -> str:
    """Plain text as Markdown: one line, nothing in it read as markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _markdown_cell(cell: Cell) -> str:
    lead = " " if cell.text.startswith(" ") else ""
    return lead + (f"[{_markdown(cell.text)}]({cell.link})" if cell.link is not None else _markdown(cell.text))


def _markdown_table(lines: Sequence[Sequence[Cell]]) -> str:
    rows = ["| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines]
    return "\n".join([rows[0], "|" + " --- |" * len(lines[0]), *rows[1:]])


def _html_cell(cell: Cell) -> str:
    text = html.escape(cell.text)
    return text if cell.link is None else f'<a href="{html.escape(cell.link)}">{text}</a>'


def _html_table(lines: Sequence[Sequence[Cell]]) -> str:
    head = "".join(f"<th>{_html_cell(cell)}</th>" for cell in lines[0])
    rows = "".join("<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in line) + "</tr>" for line in lines[1:])
    return f'<div style="overflow-x: auto"><table><tr>{head}</tr>{rows}</table></div>'


def _html_list(lines: Sequence[Sequence[Cell]]) -> str:
    return "<ul>" + "".join(f"<li>{''.join(map(_html_cell, line))}</li>" for line in lines) + "</ul>"
