"""What others published of tokenizers, with its sources, for the measures of a study."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from audiollm.benchmarks.leaderboard.published import PublishedTable, published_tables

PUBLISHED_PATH = Path(__file__).with_name("published.json")
"""Figures that no benchmark of the leaderboard has a table for."""
TOKENS = "discrete, one codebook"
"""How audio enters the models of rows that compare tokenizers in one LLM."""
# Measures and trained parts of a study, and the published tables beside them.
_TABLES = {
    "codes": ("codes",),
    "reconstruction": ("reconstruction",),
    "classes": ("clustering",),
    "stability": ("stability",),
    "understanding": ("mmau", "mmar", "mmsu"),
    "speech": ("controllable-tts",),
}


def tables_beside(measures: Collection[str]) -> list[PublishedTable]:
    """The published tables of some measures, with the rows that are about tokenizers.

    Raises:
        ValueError: a file of figures is not of its form.
    """
    everything = published_tables() | published_tables(PUBLISHED_PATH)
    wanted = [name for measure, names in _TABLES.items() if measure in measures for name in names]
    return [_of_tokenizers(everything[name]) for name in wanted]


def _of_tokenizers(table: PublishedTable) -> PublishedTable:
    if not any(row.input == TOKENS for row in table.rows):
        return table  # all of its rows are about tokenizers
    return replace(table, rows=tuple(row for row in table.rows if row.input == TOKENS))
