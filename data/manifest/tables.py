"""Records that can be looked up by number: those in memory, and rows of a ``datasets`` data set."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from audiollm.data.files.hashing import file_sha256
from audiollm.data.files.parquet import code_maker, read_facts

from .base import Manifest, RecordError

FINGERPRINT_ROWS = 1000  # rows hashed at a time


class Records(Manifest):
    """Records that are in memory already.

    Args:
        records: the records.
        name: what messages call them.
        base_dir: folder that relative paths start from.
    """

    def __init__(self, records: Sequence[Any], name: str = "<list>", base_dir: str | None = None) -> None:
        self.name = name
        self._records = records
        self._base_dir = base_dir

    def __len__(self) -> int:
        return len(self._records)

    def where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def base_dir(self, index: int) -> str | None:
        return self._base_dir

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for record in self._records:
            digest.update(json.dumps(record, sort_keys=True, default=_hashable).encode() + b"\n")
        return digest.hexdigest()

    def _record(self, index: int) -> Any:
        return self._records[index]


def _hashable(value: Any) -> Any:
    """Turns what JSON cannot write into something that stands for its content."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for method in ("to_dict", "tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a record holds a {type(value).__name__}, which has no fingerprint; use plain values")


class Rows(Manifest):
    """Rows of a ``datasets.Dataset``, as stored: audio columns stay ``{"path", "bytes"}`` and are not decoded.

    Args:
        dataset: the data set.
        name: what messages call it.
        base_dir: folder that relative paths start from.
        file: the file whose bytes are the content, if there is one.
    """

    def __init__(self, dataset: Any, name: str, base_dir: str | None = None, file: str | None = None) -> None:
        self.name = name
        self._rows = dataset.with_format("arrow")
        self._base_dir = base_dir
        self._file = file

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        return f"{self.name}:row {index}"

    def base_dir(self, index: int) -> str | None:
        return self._base_dir

    @cached_property
    def fingerprint(self) -> str:
        if self._file is not None:
            return file_sha256(self._file)
        digest = hashlib.sha256()
        for table in self._rows.iter(batch_size=FINGERPRINT_ROWS):
            digest.update(repr(table.schema.remove_metadata()).encode())
            # How rows lie in chunks, and what metadata say of them, is not their content.
            for batch in table.combine_chunks().to_batches():
                digest.update(batch.serialize())
        return digest.hexdigest()

    def without_sound(self) -> Manifest:
        schema = self._rows.features.arrow_schema
        names = [field.name for field in schema if "binary" not in str(field.type)]
        return Rows(self._rows.select_columns(names), self.name, self._base_dir, self._file) if names else self

    def code_makers(self) -> Iterator[tuple[str, str]]:
        if self._file is None:
            return
        try:
            made_by = code_maker(read_facts(self._file))
        except (OSError, ValueError) as error:
            raise RecordError(self.name, f"is damaged: {error}; make the file again") from error
        if made_by is not None:
            yield self.name, made_by

    def _record(self, index: int) -> Any:
        return row_as_record(self._rows[index : index + 1], self.where(index))


def row_as_record(row: Any, where: str) -> Any:
    """What a row of an Arrow table holds, as plain values.

    Args:
        row: a table of one row.
        where: file and row, for messages.

    Raises:
        RecordError: it holds what Python has no value for, such as a text that is not UTF-8.
    """
    record = {}
    for number, name in enumerate(row.column_names):
        try:
            record[name] = row.column(number)[0].as_py()
        except (ValueError, OverflowError) as error:
            raise RecordError(
                where, f"{name}: cannot be read ({error}); make the file again, or leave it out"
            ) from error
    return record
