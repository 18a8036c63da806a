"""Results of a scored benchmark: a JSON file with one line an item, and tables on the screen."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import json_text, write_json
from audiollm.tables import print_table, table_console

from .base import CUSTOM_SET, CUSTOM_SET_KEY


def write_result(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a result as JSON: readable above, one line for each of its items, which come last.

    Characters beyond ASCII are escaped: predictions may hold halves of characters, which UTF-8 cannot.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    above = {name: value for name, value in result.items() if name != "items"}
    head = json_text(above, indent=1, ensure_ascii=True)
    with atomic_write(path) as file:
        file.write(head.removesuffix("\n}") + ',\n "items": [')
        separator = "\n  "
        for item in result["items"]:
            file.write(separator + json.dumps(item, allow_nan=False))
            separator = ",\n  "
        file.write("\n ]\n}\n")


def write_facts(facts: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes facts as JSON."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, facts, indent=1, ensure_ascii=True)


def show_result(result: Mapping[str, Any], output: str | None, *, as_json: bool = False) -> None:
    """Writes a result to a file, if one is named, and shows it without its items."""
    if output is not None:
        write_result(result, output)
    if as_json:
        shown = {name: value for name, value in result.items() if name != "items"}
        sys.stdout.write(json.dumps(shown, allow_nan=False) + "\n")
        return
    console = table_console()
    for line in result["printed"]:
        console.print(line, soft_wrap=True)
    print_table(_facts_table(result), console)


def data_version(data: Mapping[str, Any]) -> str:
    """Which version of the questions a result was made with, in words."""
    return data["known_as"] or (CUSTOM_SET if data.get(CUSTOM_SET_KEY) else "not a known version")


def _facts_table(result: Mapping[str, Any]) -> Table:
    table = Table(title=f"{result['benchmark']}, {result['mode']}", show_header=False, title_justify="left")
    interval = result["interval"]
    spread = f" ({interval['low']:.4f} to {interval['high']:.4f} at {interval['level']:.0%})" if interval else ""
    rows: dict[str, Any] = {
        "accuracy": f"{result['accuracy']:.4f}{spread}",
        "right, counted, asked": f"{result['n_correct']:,} of {result['n_counted']:,} of {result['n_items']:,}",
        "without a reply": f"{result['n_missing']:,}",
        "unreadable replies": f"{result['n_unreadable']:,}",
        "problems": f"{result['n_problems']:,}",
    }
    if (result.get("n_in_data") or 0) > result["n_items"]:
        rows["part of the benchmark"] = f"{result['n_items']:,} of {result['n_in_data']:,} questions"
    if result.get("n_read_from"):
        rows["replies read by"] = ", ".join(f"{how} {number:,}" for how, number in result["n_read_from"].items())
    if result["n_replies_cut"]:
        rows["replies cut at the longest length"] = f"{result['n_replies_cut']:,}"
    if result["n_recordings_cut"]:
        rows["recordings heard in part"] = f"{result['n_recordings_cut']:,}"
    for name, share in result["baselines"].items():
        if share is not None:
            rows["always the first option" if name == "first_option" else "a random option"] = f"{share:.4f}"
    rows["predictions"] = f"{result['predictions']['file']}, sha256 {result['predictions']['sha256'][:16]}"
    if result["data"] is not None:
        data = result["data"]
        rows["data"] = f"sha256 {data['sha256'][:16]}, {data_version(data)}"
    if result["prompt"] is not None:
        rows["prompt"] = result["prompt"].get("id", "")
    if result["model"] is not None:
        rows["model"] = result["model"].get("name", "")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
