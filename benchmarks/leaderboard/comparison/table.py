"""Comparisons of results on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from audiollm.tables import print_table, table_console

from .comparison import ComparedFigure, ComparedSets, Comparison
from .paired_tests import TestedDifference


def show_comparisons(sets: ComparedSets, *, max_items: int = 20) -> None:
    """Prints a table for each pair of results, then the items that changed.

    Args:
        sets: what was compared.
        max_items: print so many changed items of each figure.
    """
    console = table_console()
    for comparison in sets.comparisons:
        console.print(f"{comparison.name} ({comparison.kind})", style="bold", soft_wrap=True)
        _print_differences(console, "different", comparison.different)
        if comparison.is_refused:
            console.print(
                "  not compared: figures under different conditions say nothing about a model", soft_wrap=True
            )
            continue
        _print_differences(console, "also different", comparison.remarks)
        print_table(_table(comparison), console)
        for title, changed in (("lost", comparison.lost), ("won", comparison.won), ("in one", comparison.unpaired)):
            for name, items in changed.items():
                more = f" and {len(items) - max_items} more" if len(items) > max_items else ""
                console.print(f"  {name}, {title}: {', '.join(items[:max_items])}{more}", soft_wrap=True)
    for title, names in (("only in the old", sets.only_old), ("only in the new", sets.only_new)):
        for name in names:
            console.print(f"{title}: {name}", soft_wrap=True)
    for line in sets.unread:
        console.print(f"not read: {line}", soft_wrap=True)


def _print_differences(console: Console, title: str, different: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (old, new) in different.items():
        console.print(f"  {title}: {name}: {old} before, {new} now", soft_wrap=True)


def _table(comparison: Comparison) -> Table:
    table = Table("figure", "old", "new", "difference", "chance?")
    for figure in comparison.figures:
        table.add_row(figure.name, _shown(figure.old), _shown(figure.new), _difference(figure), _chance(figure.tested))
    return table


def _difference(figure: ComparedFigure) -> str:
    if figure.old is None or figure.new is None:
        return ""
    difference = figure.new - figure.old
    verdict = "" if not figure.gain else " better" if figure.gain > 0 else " worse"
    return f"{difference:+.4f}{verdict}"


def _chance(tested: TestedDifference | None) -> str:
    if tested is None:
        return "not known"
    told = "beyond chance" if tested.beyond_chance else "may be chance"
    if tested.p_value is not None:
        return f"{told} (p = {tested.p_value:.3g}, {tested.test}, {tested.num_items:,} items)"
    assert tested.interval is not None
    low, high = tested.interval
    return f"{told} ({low:+.4f} to {high:+.4f}, {tested.test}, {tested.num_items:,} items)"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
