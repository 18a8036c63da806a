"""Rows of the leaderboard: what a result, a baseline or a source says of one model, and under which conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .published import Figure, PublishedTable
from .traces import Trace

NOT_STATED = "not stated"
OWN_PROMPT = "the source's own"


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """One line of a table.

    Attributes:
        model: whose figures they are.
        origin: a result file of ours, what a result says of guessing, or a published figure.
        figures: by column; a column that is not there is empty.
        conditions: what figures must share to be compared: data, grading, prompt … in words. Rows that differ in any
            carry different marks.
        facts: what stands beside the figures, by column.
        source: who published it, or the name of the result file.
        traces: the files that our figures come from.
        note: what else must be known.
    """

    model: str
    origin: Literal["ours", "baseline", "published"]
    figures: Mapping[str, Figure]
    conditions: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    source: str
    traces: Sequence[Trace] = ()
    note: str | None = None

    @property
    def is_traceable(self) -> bool:
        """Whether every file that its figures come from is there, unchanged; true of what is not ours."""
        return all(trace.problem is None for trace in self.traces)


@dataclass(frozen=True, kw_only=True)
class LeaderboardTable:
    """One table of the page.

    Attributes:
        title: above it.
        columns: figures, in their order.
        unit: of the figures; empty where columns name it.
        note: what is true of all rows.
        rows: ours, then baselines, then published ones.
    """

    title: str
    columns: Sequence[str]
    unit: str
    note: str
    rows: Sequence[LeaderboardRow]


def published_rows(table: PublishedTable) -> list[LeaderboardRow]:
    """The rows of a source, under the conditions that it states."""
    rows = []
    for row in table.rows:
        is_baseline = row.input == "baseline"
        conditions = {"data": row.data or NOT_STATED}
        if not is_baseline:
            conditions |= {"grading": row.grading or NOT_STATED, "prompt": OWN_PROMPT, "source": row.source}
        rows.append(
            LeaderboardRow(
                model=row.model,
                origin="baseline" if is_baseline else "published",
                figures=row.values,
                conditions=conditions,
                facts={"audio as": row.input} if row.input and not is_baseline else {},
                source=row.source,
                note=row.note,
            )
        )
    return rows


def marks_of(rows: Sequence[LeaderboardRow]) -> dict[tuple[tuple[str, str], ...], str]:
    """A mark for each set of conditions, in order of appearance: a, b, …, z, aa, ab, …"""
    marks: dict[tuple[tuple[str, str], ...], str] = {}
    for row in rows:
        marks.setdefault(conditions_key(row), _letters(len(marks)))
    return marks


def conditions_key(row: LeaderboardRow) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.conditions.items()))


def _letters(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, place = divmod(number - 1, 26)
        letters = chr(ord("a") + place) + letters
    return letters
