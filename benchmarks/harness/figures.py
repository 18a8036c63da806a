"""Output of figures: a JSON file, and standard output as JSON or tables."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from audiollm.data.files.json_document import json_text, write_json
from audiollm.facts import finite, show_facts
from audiollm.tables import table_console

from .options import check_output


def write_figures(results: Mapping[str, Any], output: str | None) -> str:
    """Writes figures as JSON to a file, whole or not at all; nowhere if ``output`` is None. Returns the JSON."""
    figures = finite(results)
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        write_json(output, figures)
    return json_text(figures)


# Fields under which results tell them, whatever the flag is called: result files keep their format.
_NAMES_IN_RESULTS = {"output_dir": "output"}


def recorded_config(config: Any, **settled: object) -> dict[str, Any]:
    """What a result tells of the config it was made with.

    Args:
        config: a dataclass. How the result is printed (``json``) and what it may replace are no part of it.
        settled: fields that the run decided, such as the device.
    """
    told = dataclasses.asdict(config) | settled
    for name in ("json", "overwrite"):
        told.pop(name, None)
    return {_NAMES_IN_RESULTS.get(name, name): value for name, value in told.items()}


def audio_tokenizer_of(config: Mapping[str, Any]) -> str:
    """The audio tokenizer that a result's config names; in older results the field is called ``tokenizer``."""
    return str(config.get("audio_tokenizer", config.get("tokenizer")))


def print_json(result: Mapping[str, Any], *without: str) -> None:
    """Prints a result on one line of standard output, without some of its fields."""
    shown = {name: value for name, value in result.items() if name not in without}
    sys.stdout.write(json_text(finite(shown), indent=None) + "\n")


def measure_and_show(
    config: Any, measure: Callable[[Any], dict[str, Any]], print_tables: Callable[[dict[str, Any], Console], None]
) -> None:
    """Runs a measurement, writes its figures down and shows them.

    Args:
        config: of the measurement, with ``output``, ``overwrite`` and ``json``.
        measure: gives the figures.
        print_tables: shows them, where no JSON was asked for.
    """
    check_output(config)
    results = measure(config)
    text = write_figures(results, config.output)
    if config.json:
        sys.stdout.write(text + "\n")
    else:
        print_tables(results, table_console())


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
    for title, figures in results.items():
        if isinstance(figures, Mapping) and title != "config":
            show_facts(figures, title=title.replace("_", " "))
