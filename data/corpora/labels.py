"""Reviewed classes of the sound events (``sound_labels.tsv``).

The classes were given by whole words of file names and captions and then reviewed one by one: rules over parts of words
mislabel about a tenth ("growl" holds "owl", "saxophone" holds "phone"). ``-`` leaves a recording out: its name does not
say what is heard, or its origin is doubtful.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from .clips import CorpusError

LABELS_PATH = Path(__file__).with_name("sound_labels.tsv")
_LEFT_OUT = "-"


@cache
def sound_labels(source: str) -> dict[str, str]:
    """Name → class for the recordings of one source that are kept.

    Args:
        source: name of the corpus.

    Returns:
        The labelled names; those that are left out are absent.

    Raises:
        CorpusError: if the table is malformed or knows nothing of ``source``.
    """
    return {name: label for name, label in _table(source).items() if label != _LEFT_OUT}


def check_reviewed(source: str, names: set[str]) -> None:
    """Raises `CorpusError` unless the table has been over exactly these names."""
    reviewed = set(_table(source))
    if names != reviewed:
        missing, gone = sorted(names - reviewed)[:8], sorted(reviewed - names)[:8]
        raise CorpusError(
            f"{source}: {len(names)} recordings but {len(reviewed)} reviewed labels in {LABELS_PATH.name}; "
            f"not reviewed: {', '.join(missing) or 'none'}; no longer there: {', '.join(gone) or 'none'}"
        )


@cache
def _table(source: str) -> dict[str, str]:
    with LABELS_PATH.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row["source"] == source]
    labels = {row["name"]: row["label"] for row in rows}
    if not rows or len(labels) != len(rows) or not all(labels.values()):
        raise CorpusError(
            f"{LABELS_PATH}: {len(rows)} rows for {source}, {len(labels)} names; each name once, with a label"
        )
    return labels
