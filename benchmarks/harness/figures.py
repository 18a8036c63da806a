"""Where the figures of a benchmark script go: a JSON file, and standard output as JSON or tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from audiollm.data.files.atomic import atomic_write


def write_figures(results: Mapping[str, Any], output: str | None) -> str:
    """Writes figures as JSON to a file, whole or not at all; nowhere if ``output`` is None. Returns the JSON."""
    text = json.dumps(results, indent=2, allow_nan=False, ensure_ascii=False)
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as file:
            file.write(text + "\n")
    return text


def show_figures(results: Mapping[str, Any], output: str | None, *, as_json: bool) -> None:
    """Writes figures.

    Args:
        results: sections; those that are mappings of names to values become tables, ``config`` does not.
        output: file for all of it as JSON; none if None.
        as_json: print JSON in place of tables.
    """
    text = write_figures(results, output)
    if as_json:
        sys.stdout.write(text + "\n")
        return
    console = Console()
    for title, figures in results.items():
        if isinstance(figures, Mapping) and title != "config":
            table = Table(title.replace("_", " "), "")
            for name, value in figures.items():
                table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
            console.print(table)
