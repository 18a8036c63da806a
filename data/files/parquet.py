"""JSONL to parquet: one schema for records of different shapes, found without holding all of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .atomic import atomic_write
from .text import is_whole

PARQUET_ROWS = 1000  # per row group


def write_parquet(lines: IO[bytes], output: Path) -> None:
    """Converts JSONL to parquet in two passes: one to find the types of all records, one to write."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    def chunks() -> Iterator[list[dict[str, Any]]]:
        lines.seek(0)
        while rows := [_uniform(json.loads(line)) for line in itertools.islice(lines, PARQUET_ROWS)]:
            yield rows

    def schema_of(rows: list[dict[str, Any]]) -> pyarrow.Schema:
        names = dict.fromkeys(name for row in rows for name in row)  # pyarrow looks at the first row's only
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names}).schema

    schemas = [schema_of(rows) for rows in chunks()]
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    with atomic_write(output, "wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in chunks():
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def check_parquet_values(record: Any) -> None:
    """Looks for values that no column can hold.

    Raises:
        ValueError: a text with half a character (of a surrogate pair) in it, or a number of more than 64 bits.
    """
    if isinstance(record, str):
        if not is_whole(record):
            raise ValueError(f"parquet holds no half characters, as in {record[:40]!r}")
    elif isinstance(record, int) and not -(2**63) <= record < 2**63:
        raise ValueError(f"parquet holds no whole numbers of more than 64 bits, such as {record}")
    elif isinstance(record, Mapping):
        for key, value in record.items():
            check_parquet_values(key)
            check_parquet_values(value)
    elif isinstance(record, (list, tuple)):
        for value in record:
            check_parquet_values(value)


def _uniform(record: dict[str, Any]) -> dict[str, Any]:
    """Writes as JSON text what has another shape in every record: the functions a model may call, and its calls."""
    if record.get("tools") is not None:
        record["tools"] = json.dumps(record["tools"], ensure_ascii=False)
    for message in record.get("messages", ()):
        if message.get("tool_calls") is not None:
            message["tool_calls"] = json.dumps(message["tool_calls"], ensure_ascii=False)
    return record
