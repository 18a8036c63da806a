"""Facts for people and scripts: names and values as a table, or as JSON."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from audiollm.data.files.json_document import json_text
from audiollm.tables import print_table

logger = logging.getLogger(__name__)


def finite(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that JSON can hold: NaN and infinity become null, and a warning names where they were; paths become texts.

    What has been measured for hours must not be lost to one division by zero.
    """
    strange: list[str] = []
    told = {name: _finite(value, str(name), strange) for name, value in facts.items()}
    if strange:
        logger.warning("no finite number, written as null: %s", ", ".join(strange))
    return told


def _finite(value: Any, where: str, strange: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner, f"{where}.{name}", strange) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner, f"{where}[{index}]", strange) for index, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        strange.append(f"{where} ({value})")
        return None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def show_facts(facts: Mapping[str, Any], *, title: str, as_json: bool = False) -> None:
    """Prints a table of two columns for people, or JSON on one line for scripts.

    What is None was not given, or is not there: the table leaves it out, JSON says null.
    """
    if as_json:
        sys.stdout.write(json_text(finite(facts), indent=None) + "\n")
        return
    from rich.table import Table  # not at import: commands that print no table start without it

    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        if value is not None:
            table.add_row(name.replace("_", " "), shown_value(value))
    print_table(table)


def shown_value(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # Shares and rates need the digits that tell them apart, hours of sound and tokens a second do not.
        return f"{value:,.1f}".removesuffix(".0") if abs(value) >= 1000 else f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
