"""The table of spoken recordings: a row for each system, with the judges' names in the headings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from audiollm.tables import print_table

MISSING = "–"
OTHERS = {"stoi": "STOI ↑", "mel_distance": "mel distance ↓", "bitrate_bps": "bit/s"}


def show_speech_table(rows: Mapping[str, Mapping[str, Any]], judges: Mapping[str, str | None]) -> None:
    """Prints the rows.

    Args:
        rows: figures by name: ``wer``, ``similarity``, ``mos``, ``missing``, and others where they are there.
        judges: as `names`.
    """
    others = [name for name in OTHERS if any(name in row for row in rows.values())]
    table = Table()
    table.add_column("")
    for heading in (
        f"WER ↓ ({judges['asr'] or 'not asked'})",
        f"similarity ↑ ({judges['speaker_encoder'] or 'not asked'})",
        f"MOS ↑ ({judges['mos_predictor'] or 'not asked'})",
        *(OTHERS[name] for name in others),
        "recordings",
        "missing",
        *(("capped WER ↓", "looped") if any("looped" in row for row in rows.values()) else ()),
    ):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        cells = [
            _cell(row["wer"], "{:.3%}"),
            _cell(row["similarity"]["mean"], "{:.3f}"),
            _cell(row["mos"]["mean"], "{:.3f}"),
            *(_cell(row.get(other), "{:.3f}") for other in others),
            str(row["n_items"] - len(row["missing"])),
            str(len(row["missing"])),
            *([_cell(row["wer_capped"], "{:.3%}"), str(len(row["looped"]))] if "looped" in row else []),
        ]
        table.add_row(name, *cells)
    print_table(table)


def _cell(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def without_recordings(row: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a row, without those of single recordings."""
    return {key: value for key, value in row.items() if key not in ("items", "distances", "verdicts")}
