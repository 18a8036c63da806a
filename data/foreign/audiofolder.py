"""An ``audiofolder`` of ``datasets``: recordings with ``metadata.csv``, ``.jsonl`` or ``.parquet`` in their folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audiollm.data.manifest import RecordError

from .base import Entry
from .clips import FILE_KEYS, first_of
from .files import entries_of

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SPLITS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "test": "test"}


def is_audiofolder(path: str) -> bool:
    """Whether a folder holds metadata, itself or in a folder below."""
    return os.path.isdir(path) and any(True for _ in _metadata_files(path))


def audiofolder_entries(path: str, base_dir: str | None) -> Iterator[Entry]:
    """The rows of all metadata of a folder, in the order of their paths; or of one such file.

    Each row gets an id, the path of its recording in the folder, and the split whose name a folder on the way has.

    Raises:
        RecordError: a folder has two metadata files.
    """
    if os.path.isfile(path):
        yield from entries_of(path, base_dir)
        return
    for folder, metadata in _metadata_files(path):
        inside = Path(os.path.relpath(folder, path))
        split = next((_SPLITS[part] for part in inside.parts if part in _SPLITS), None)
        for entry in entries_of(metadata, base_dir or os.path.abspath(folder)):
            yield entry if not isinstance(entry.value, Mapping) else _placed(entry, inside, split)


def _placed(entry: Entry, inside: Path, split: str | None) -> Entry:
    row: Mapping[str, Any] = entry.value
    key = first_of(row, FILE_KEYS)
    facts: dict[str, Any] = {} if split is None or "split" in row else {"split": split}
    if key is not None and "id" not in row:
        facts["id"] = (inside / str(row[key])).as_posix()
    return Entry(entry.where, entry.base_dir, {**facts, **row})


def _metadata_files(path: str) -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(path):
        folders.sort()
        found = [name for name in METADATA_NAMES if name in names]
        if len(found) > 1:
            raise RecordError(folder, f"holds {' and '.join(found)}; keep one")
        if found:
            yield folder, os.path.join(folder, found[0])
