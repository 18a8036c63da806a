"""Published figures, as data with their sources: ``published.json`` and its reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED_PATH = Path(__file__).with_name("published.json")

Figure = float | tuple[float, float] | None
"""A number; the lowest and the highest where sources differ; None where nothing is published."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """Figures of one model from one source.

    Attributes:
        model: as the source calls it.
        source: who says so.
        values: by column, in the unit of the table.
        input: how audio enters the model: continuous, discrete …; or what else the row is, such as a baseline.
        data: version of the data, where the source states it.
        grading: how replies were graded, where it is not the benchmark's own rule.
        note: what else must be known.
    """

    model: str
    source: str
    values: Mapping[str, Figure]
    input: str | None = None
    data: str | None = None
    grading: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class PublishedTable:
    """The published figures of one benchmark.

    Attributes:
        benchmark: its name, as result files say it.
        title: for people.
        columns: in the order of the papers.
        unit: of the figures; empty where columns name it.
        note: what is true of all rows.
        rows: in the order in which they are shown.
    """

    benchmark: str
    title: str
    columns: tuple[str, ...]
    unit: str
    note: str
    rows: tuple[PublishedRow, ...]


def published_tables(path: Path = PUBLISHED_PATH) -> dict[str, PublishedTable]:
    """Reads published figures, by benchmark.

    Raises:
        ValueError: if the file is not of its form, naming table and row.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    sources: Mapping[str, str] = content["sources"]
    tables = [_table(table, sources) for table in content["tables"]]
    found = {table.benchmark: table for table in tables}
    if len(found) < len(tables):
        raise ValueError(f"{path.name}: a benchmark has two tables; put all its rows into one")
    return found


def _table(table: Mapping[str, Any], sources: Mapping[str, str]) -> PublishedTable:
    columns = tuple(table["columns"])
    rows = [_row(row, columns, sources, f"{table['benchmark']}, row {n}") for n, row in enumerate(table["rows"])]
    return PublishedTable(table["benchmark"], table["title"], columns, table["unit"], table["note"], tuple(rows))


def _row(row: Mapping[str, Any], columns: tuple[str, ...], sources: Mapping[str, str], where: str) -> PublishedRow:
    unknown = row.keys() - {"model", "source", "values", "input", "data", "grading", "note"}
    if unknown:
        raise ValueError(f"{where}: unknown fields {', '.join(sorted(unknown))}")
    if row.get("source") not in sources:
        raise ValueError(f"{where}: source is {row.get('source')!r}; name one of those in the head of the file")
    if not row.get("model") or len(row["values"]) != len(columns):
        raise ValueError(f"{where}: give a model and {len(columns)} values, null where nothing is published")
    values = {name: _figure(value, f"{where}, {name}") for name, value in zip(columns, row["values"], strict=True)}
    if all(value is None for value in values.values()):
        raise ValueError(f"{where}: holds no figure")
    return PublishedRow(
        model=row["model"],
        source=sources[row["source"]],
        values=values,
        input=row.get("input"),
        data=row.get("data"),
        grading=row.get("grading"),
        note=row.get("note"),
    )


def _figure(value: Any, where: str) -> Figure:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and value[0] < value[1]:
        return float(value[0]), float(value[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {value!r} is no figure; give a number, [lowest, highest], or null")
    return float(value)
