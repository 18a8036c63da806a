"""JSONL to parquet: one schema for records of different shapes, found without holding all of them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .atomic import atomic_write
from .text import is_whole

PARQUET_ROWS = 1000  # per row group
FACTS_KEY = b"audiollm"  # in the metadata of a file; what is said of it, as JSON
_INT16_CODES = 1 << 15


def write_parquet(
    lines: IO[bytes],
    output: Path,
    *,
    facts: Mapping[str, Any] | None = None,
    codebook_size: int | None = None,
    compression: str = "snappy",
) -> None:
    """Converts JSONL to parquet in two passes: one to find the types of all records, one to write.

    Pages carry checksums: codes hardly compress, so that most damage would be read as other codes.

    Args:
        lines: the records, one a line.
        output: the file; it appears whole or not at all.
        facts: what is said of the file, for `read_facts`.
        codebook_size: store whatever is called ``codes`` in 16 bits, or 32 if that many are more; None: in 64.
        compression: as pyarrow calls it.
    """
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    def chunks() -> Iterator[list[dict[str, Any]]]:
        lines.seek(0)
        while rows := [_uniform(json.loads(line)) for line in itertools.islice(lines, PARQUET_ROWS)]:
            yield rows

    def schema_of(rows: list[dict[str, Any]]) -> pyarrow.Schema:
        names = dict.fromkeys(name for row in rows for name in row)  # pyarrow looks at the first row's only
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names}).schema

    schemas = [schema_of(rows) for rows in chunks()] or [pyarrow.schema([("id", pyarrow.string())])]
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    if codebook_size is not None:
        small = pyarrow.int16() if codebook_size <= _INT16_CODES else pyarrow.int32()
        schema = pyarrow.schema([_with_small_codes(field, small) for field in schema])
    if facts is not None:
        schema = schema.with_metadata({FACTS_KEY: json.dumps(facts)})
    with (
        atomic_write(output, "wb") as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression=compression, write_page_checksum=True) as writer,
    ):
        for rows in chunks():
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_parquet` was told of a file; empty for files of others. Only the end of the file is read.

    Raises:
        OSError, ValueError: it cannot be read, or is not a whole parquet file.
    """
    import pyarrow.parquet

    return facts_of(pyarrow.parquet.read_metadata(path))


def facts_of(metadata: Any) -> dict[str, Any]:
    """What `write_parquet` was told of a file, in its metadata as pyarrow reads them.

    Raises:
        ValueError: something else stands there.
    """
    text = (metadata.metadata or {}).get(FACTS_KEY)
    if text is None:
        return {}
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise ValueError(f"its metadata {FACTS_KEY.decode()!r} is no JSON ({error})") from error
    if not isinstance(facts, dict):
        raise ValueError(f"its metadata {FACTS_KEY.decode()!r} is no object, but a {type(facts).__name__}")
    return facts


def code_maker(facts: Mapping[str, Any]) -> str | None:
    """Fingerprint of the audio tokenizer that made the codes in a file, if its facts name one.

    Raises:
        ValueError: what they name is no fingerprint.
    """
    made_by = facts.get("audio_tokenizer")
    if made_by is not None and not isinstance(made_by, str):
        raise ValueError(f"its metadata name the audio tokenizer {made_by!r}, which is no fingerprint (a string)")
    return made_by


def refuse_repeated_columns(names: Sequence[str]) -> None:
    """Refuses columns of one name, of which a record would keep the last.

    Raises:
        ValueError: naming it.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"it has several columns {twice!r}")


def num_rows(path: str | os.PathLike[str]) -> int | None:
    """How many rows a parquet file has; None if it is damaged. Only the end of the file is read."""
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (OSError, ValueError):
        return None  # whoever reads it says what is wrong


def _with_small_codes(field: Any, small: Any, *, is_codes: bool = False) -> Any:
    """A field whose whole numbers below the name ``codes`` are of another type."""
    import pyarrow

    is_codes = is_codes or field.name == "codes"
    kind = field.type
    if pyarrow.types.is_list(kind):
        return field.with_type(pyarrow.list_(_with_small_codes(kind.value_field, small, is_codes=is_codes)))
    if pyarrow.types.is_struct(kind):
        inner = [_with_small_codes(kind.field(n), small) for n in range(kind.num_fields)]
        return field.with_type(pyarrow.struct(inner))
    return field.with_type(small) if is_codes and pyarrow.types.is_integer(kind) else field


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
