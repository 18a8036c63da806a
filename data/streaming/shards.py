"""Shards: files of records, listed at once and read block by block when their turn comes.

A block is what is read in one go: a row group of a parquet file, the lines that begin in a mebibyte of JSONL, a
thousand rows of a data set. Nothing of a file is read before it is asked for, so that 100,000 of them are opened in no
time.
"""

from __future__ import annotations

import glob
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from audiollm.data.files.parquet import code_maker, facts_of, refuse_repeated_columns
from audiollm.data.manifest import (
    Manifest,
    RecordError,
    file_format,
    open_manifest,
    parse_json_line,
    record_files,
    refuse_split,
    refuse_unfinished,
    row_as_record,
)

BLOCK_BYTES = 1 << 20  # of JSONL
BLOCK_ROWS = 1000  # of a data set, and of records in memory


class Block(ABC):
    """Records that are read together."""

    @abstractmethod
    def __len__(self) -> int:
        """Its records; known without decoding them."""

    @abstractmethod
    def record(self, row: int) -> Any:
        """The record in a row.

        Raises:
            RecordError: if it is none, or the block is damaged.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """The place of a record, for messages."""


class Shard(ABC):
    """A file of records, or whatever else is read in blocks.

    Attributes:
        name: what messages call it.
        base_dir: folder that relative paths of its records start from; None: the working folder.
    """

    name: str
    base_dir: str | None

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """Its blocks.

        Raises:
            RecordError: if it is damaged.
        """

    @abstractmethod
    def block(self, number: int) -> Block:
        """One of them.

        Raises:
            RecordError: if it is damaged.
        """

    @property
    @abstractmethod
    def num_records(self) -> int | None:
        """Its records, if that can be told without reading it; else None."""

    @property
    def code_maker(self) -> str | None:
        """Fingerprint of the audio tokenizer that made all codes in it, if it says so."""
        return None

    @property
    @abstractmethod
    def identity(self) -> str:
        """What tells it from another one, found without reading it: for a file, its name and size."""


class _File:
    """A file whose blocks are read one by one, and which must stay as it is meanwhile.

    Args:
        name: what messages call it.
        path: where it lies.
    """

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path

    @cached_property
    def size(self) -> int:
        """Its bytes when it was first looked at.

        Raises:
            RecordError: it is not there.
        """
        return self._size_now()

    def refuse_change(self) -> None:
        """Refuses a file that is written while it is read: its records would come twice, or not at all.

        Raises:
            RecordError: it has another size than before, or is gone.
        """
        before, now = self.size, self._size_now()
        if now != before:
            raise RecordError(
                self.name,
                f"has changed while it was read (from {before:,} to {now:,} bytes): put it back, or begin anew",
            )

    def _size_now(self) -> int:
        try:
            return os.path.getsize(self.path)
        except OSError as error:
            raise RecordError(self.name, f"cannot be opened: {error.strerror}") from error


class FileShard(Shard):
    """A JSONL or parquet file, told apart by content when it is first looked into.

    Args:
        path: the file.
        base_dir: folder that relative paths of its records start from; the file's own by default.
    """

    def __init__(self, path: str, base_dir: str | None = None) -> None:
        self.name = path
        self.base_dir = base_dir or os.path.dirname(os.path.abspath(path))
        self._file = _File(path, os.path.abspath(path))

    @property
    def num_blocks(self) -> int:
        return self._content.num_blocks

    def block(self, number: int) -> Block:
        return self._content.block(number)

    @property
    def num_records(self) -> int | None:
        return self._content.num_records

    @property
    def code_maker(self) -> str | None:
        return self._content.code_maker

    @property
    def path(self) -> str:
        """Where it lies, whatever way leads there."""
        return os.path.realpath(self._file.path)

    @property
    def identity(self) -> str:
        return f"{os.path.basename(self.name)}:{self._file.size}"

    @cached_property
    def _content(self) -> _JsonLinesContent | _ParquetContent | ManifestShard:
        self._file.refuse_change()
        kind = file_format(self._file.path, self.name)
        if kind == "parquet":
            return _ParquetContent(self._file)
        return ManifestShard(open_manifest(self.name)) if kind == "json array" else _JsonLinesContent(self._file)


class ManifestShard(Shard):
    """Records that can be read by number: a data set that is mapped into memory, or records that are there already.

    Args:
        manifest: the records.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.name = manifest.name
        self.base_dir = manifest.base_dir(0) if len(manifest) else None
        self._manifest = manifest

    @property
    def num_blocks(self) -> int:
        return -(-len(self._manifest) // BLOCK_ROWS)

    def block(self, number: int) -> Block:
        first = number * BLOCK_ROWS
        return _ManifestBlock(self._manifest, range(first, min(first + BLOCK_ROWS, len(self._manifest))))

    @property
    def num_records(self) -> int:
        return len(self._manifest)

    @property
    def identity(self) -> str:
        return f"{os.path.basename(self.name)}:{len(self._manifest)} records"


class _ManifestBlock(Block):
    def __init__(self, manifest: Manifest, rows: range) -> None:
        self._manifest, self._rows = manifest, rows

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, row: int) -> Any:
        return self._manifest[self._rows[row]]

    def where(self, row: int) -> str:
        return self._manifest.where(self._rows[row])


class _JsonLinesContent:
    """The lines of a file, by the mebibyte in which they begin: found without reading what is before them."""

    num_records = code_maker = None

    def __init__(self, file: _File) -> None:
        self._file = file

    @property
    def num_blocks(self) -> int:
        return -(-self._file.size // BLOCK_BYTES)

    def block(self, number: int) -> Block:
        lines, offsets = [], []
        end = (number + 1) * BLOCK_BYTES
        self._file.refuse_change()
        try:
            with open(self._file.path, "rb") as file:
                position = number * BLOCK_BYTES
                if position:  # the rest of a line that began before belongs to the block before
                    file.seek(position - 1)
                    position += len(file.readline()) - 1
                while position < end and (line := file.readline()):
                    if line.strip():
                        lines.append(line)
                        offsets.append(position)
                    position += len(line)
        except OSError as error:
            raise RecordError(self._file.name, f"cannot be read: {error.strerror or error}") from error
        return _LinesBlock(self._file.name, lines, offsets)


class _LinesBlock(Block):
    def __init__(self, name: str, lines: Sequence[bytes], offsets: Sequence[int]) -> None:
        self._name, self._lines, self._offsets = name, lines, offsets

    def __len__(self) -> int:
        return len(self._lines)

    def record(self, row: int) -> Any:
        return parse_json_line(self._lines[row], self.where(row))

    def where(self, row: int) -> str:
        # Not the number of the line, which only those know who have read all lines before it.
        return f"{self._name}:byte {self._offsets[row]}"


class _ParquetContent:
    """The row groups of a file."""

    def __init__(self, file: _File) -> None:
        import pyarrow  # type: ignore[import-untyped]  # slow
        import pyarrow.parquet  # type: ignore[import-untyped]

        self._file = file
        self._damages = (pyarrow.ArrowException, OSError)
        self.code_maker: str | None
        try:
            with pyarrow.parquet.ParquetFile(file.path) as content:
                groups = [content.metadata.row_group(number).num_rows for number in range(content.num_row_groups)]
                self.code_maker = code_maker(facts_of(content.metadata))
                refuse_repeated_columns(content.schema_arrow.names)
        except (*self._damages, ValueError) as error:
            raise _damaged(file.name, error) from error
        self._starts = [0, *accumulate(groups)]

    @property
    def num_blocks(self) -> int:
        return len(self._starts) - 1

    @property
    def num_records(self) -> int:
        return self._starts[-1]

    def block(self, number: int) -> Block:
        return _RowGroup(self, number, range(self._starts[number], self._starts[number + 1]))

    def read(self, number: int) -> Any:
        """The table of a row group.

        Raises:
            RecordError: if it is damaged.
        """
        import pyarrow.parquet

        self._file.refuse_change()
        try:
            with pyarrow.parquet.ParquetFile(self._file.path, page_checksum_verification=True) as content:
                return content.read_row_group(number)
        except self._damages as error:
            raise _damaged(f"{self._file.name}:row {self._starts[number]} and those after it", error) from error

    def where(self, row: int) -> str:
        assert 0 <= row < self._starts[bisect_right(self._starts, row)]
        return f"{self._file.name}:row {row}"


class _RowGroup(Block):
    """Decoded when a record is first asked for, as its length is known before."""

    def __init__(self, content: _ParquetContent, number: int, rows: range) -> None:
        self._content, self._number, self._rows = content, number, rows

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _table(self) -> Any:
        return self._content.read(self._number)

    def record(self, row: int) -> Any:
        return row_as_record(self._table.slice(row, 1), self.where(row))

    def where(self, row: int) -> str:
        return self._content.where(self._rows[row])


def _damaged(where: str, error: Exception) -> RecordError:
    return RecordError(where, f"is damaged: {' '.join(str(error).split())[:200]}; make the file again")


def open_shards(
    source: Any, *, base_dir: str | os.PathLike[str] | None = None, split: str | None = None
) -> list[Shard]:
    """Lists the shards of a source, without reading them.

    Args:
        source: a JSONL or parquet file, a folder or a glob pattern of them, or whatever else `open_manifest` opens: a
            folder saved by ``datasets``, a Hub id, records.
        base_dir: folder that relative paths start from; by default the folder of the file they are written in.
        split: which split of a data set that has several.

    Returns:
        Files in the order of their names.

    Raises:
        RecordError: there is no such file, a folder without any, one of codes in which some are still missing, or no
            folder ``base_dir``.
        ValueError: files, of which there are no splits, with ``split``.
    """
    folder = None if base_dir is None else os.path.abspath(base_dir)
    if folder is not None and not os.path.isdir(folder):
        raise RecordError(folder, "is no folder: base_dir is where relative paths of recordings start from")
    files = _files_of(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else []
    if not files:
        return [ManifestShard(open_manifest(source, base_dir=base_dir, split=split))]
    for parent in {os.path.dirname(file) for file in files}:
        refuse_unfinished(parent)
    refuse_split(split, os.fspath(source))
    return [FileShard(path, folder) for path in files]


def _files_of(path: str) -> list[str]:
    """The files that a path, a folder or a pattern stands for; none where `open_manifest` is to say what it is."""
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        if any(os.path.exists(os.path.join(path, name)) for name in ("dataset_info.json", "dataset_dict.json")):
            return []
        return record_files(path)
    return sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
