"""Tables on the screen in which no figure is ever cut: where there is no room, columns are left out, and named."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich is loaded by what prints: commands that print no table start without it
    from rich.console import Console
    from rich.table import Column, Table

_BORDER, _PADDING = 1, 3  # characters: the outer border; what stands between two columns
_UNLIMITED = 10_000  # characters of a line that goes to a file or a pipe


def table_console() -> Console:
    """The console for tables: as wide as the terminal, or as ``COLUMNS`` says; files and pipes have all the room."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, file=sys.stdout)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        return Console(markup=False, highlight=False, file=sys.stdout, width=_UNLIMITED)
    return console


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table; the columns for which there is no room are left out, the last first, and a line names them.

    Cells are wrapped between words only. Where not even two columns fit, each row is lines of ``column: value``.
    """
    console = console or table_console()
    if table.title:
        console.print(str(table.title), style="italic", soft_wrap=True)
        table.title = None
    columns = table.columns
    num_kept = len(columns)
    while num_kept > 1 and _width(list(map(_longest_word, columns[:num_kept]))) > console.width:
        num_kept -= 1
    has_names = table.show_header
    if num_kept < min(2, len(columns)) or (num_kept < len(columns) and not has_names):
        _print_lines(table, console)
        return
    left_out = columns[num_kept:]
    table.columns = columns[:num_kept]
    _set_widths(table.columns, console.width)
    console.print(table)
    if left_out:
        names = ", ".join(str(column.header) for column in left_out)
        console.print(
            f"left out, because {console.width} columns of text are too few: {names}; use a wider terminal, set "
            "COLUMNS, or take the result as JSON",
            soft_wrap=True,
        )


def _cells(column: Column) -> list[str]:
    return [str(column.header), *map(str, column.cells)]


def _longest_word(column: Column) -> int:
    from rich.cells import cell_len

    return max((cell_len(word) for cell in _cells(column) for word in cell.split()), default=1)


def _longest_line(column: Column) -> int:
    from rich.cells import cell_len

    return max((cell_len(line) for cell in _cells(column) for line in cell.splitlines()), default=1)


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + _PADDING * len(widths) + _BORDER


def _set_widths(columns: Sequence[Column], room: int) -> None:
    """Gives each column the room of its longest word, and what is left to those that want more."""
    widths = list(map(_longest_word, columns))
    wanted = [max(width, _longest_line(column)) for width, column in zip(widths, columns, strict=True)]
    left = room - _width(widths)
    for index, want in enumerate(wanted):
        more = min(left, want - widths[index])
        widths[index] += more
        left -= more
    for column, width in zip(columns, widths, strict=True):
        column.width = width


def _print_lines(table: Table, console: Console) -> None:
    """Rows as lines, which the terminal itself may break but nothing cuts."""
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    for cells in rows:
        if not table.show_header:
            console.print(": ".join(map(str, cells)), soft_wrap=True)
            continue
        for column, cell in zip(table.columns, cells, strict=True):
            console.print(f"{column.header}: {cell}".removeprefix(": "), soft_wrap=True)
