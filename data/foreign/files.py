"""Records out of files: JSON lines, also compressed, JSON arrays, parquet and data sets, and tables of text."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from audiollm.data.manifest import RecordError, open_manifest, parse_json_line
from audiollm.data.manifest.formats import GZIP_MAGIC

from .base import Entry

HEAD_BYTES = 1 << 16
MOST_NAME_LETTERS = 60  # of a column
_TABS = "\t"
_DELIMITERS = (_TABS, ",", ";")  # semicolons as spreadsheets write them where a comma is the decimal sign


def entries_of(path: str, base_dir: str | None) -> Iterator[Entry]:
    """The records of a file or folder, whose kind its content tells; relative paths start from its folder.

    Args:
        path: JSONL (also gzip), a JSON array, parquet, a table with a header, a folder of such, a saved data set.
        base_dir: the folder that relative paths start from instead.

    Raises:
        RecordError: it cannot be read at all.
    """
    if os.path.isfile(path):
        if is_gzip(path):
            return _compressed_lines(path, base_dir or folder_of(path))
        delimiter = table_delimiter(path)
        if delimiter is not None:
            return table_entries(path, delimiter, base_dir or folder_of(path))
    return _manifest_entries(path, base_dir)


def folder_of(path: str) -> str:
    """The absolute folder of a file."""
    return os.path.dirname(os.path.abspath(path))


def is_gzip(path: str) -> bool:
    with opened(path) as file:
        return file.read(2) == GZIP_MAGIC


def opened(path: str) -> IO[bytes]:
    """A file open for reading.

    Raises:
        RecordError: it cannot be opened.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise RecordError(path, f"cannot be opened: {error.strerror}") from error


def first_line(path: str) -> str:
    """The first line of a text file that is not blank, without its end; "" if there is none or it is no text."""
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    if b"\0" in head:
        return ""
    lines = (line.decode("utf-8-sig", "replace") for line in head.split(b"\n"))
    return next((line.rstrip("\r") for line in lines if line.strip()), "")


def table_delimiter(path: str) -> str | None:
    """What separates the columns of a table with a header, a tab, comma or semicolon; None if the file is none."""
    line = first_line(path)
    if not line or line.lstrip()[0] in "{[":
        return None
    for delimiter in _DELIMITERS:
        names = [name.strip() for name in line.split(delimiter)]
        # A header names columns: `key path` of Kaldi and a list of paths have no such line.
        if len(names) > 1 and len(set(names)) == len(names) and all(_is_name(name) for name in names):
            return delimiter
    return None


def table_entries(path: str, delimiter: str, base_dir: str) -> Iterator[Entry]:
    """The rows of a table as objects; cells between tabs are taken as they are, others may be quoted."""
    # Bytes that are no UTF-8 come through as half characters: they make one bad row, not a bad file.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if delimiter == _TABS:
            reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(row for row in reader if row)]
        while True:
            where = f"{path}:{reader.line_num + 1}"
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Entry(where, base_dir, error=RecordError(where, f"is no row of a table: {error}"))
                continue
            if row:
                yield _row_entry(where, base_dir, header, row)


def _row_entry(where: str, base_dir: str, header: list[str], row: list[str]) -> Entry:
    reason = ""
    if len(row) != len(header):
        reason = f"has {len(row)} columns, but the header has {len(header)}"
    elif any("\udc80" <= character <= "\udcff" for cell in row for character in cell):
        reason = "is not UTF-8 text"
    if reason:
        return Entry(where, base_dir, error=RecordError(where, reason))
    return Entry(where, base_dir, dict(zip(header, row, strict=True)))


def _is_name(name: str) -> bool:
    return any(character.isalpha() for character in name) and "/" not in name and len(name) <= MOST_NAME_LETTERS


def _manifest_entries(path: str, base_dir: str | None) -> Iterator[Entry]:
    manifest = open_manifest(path, base_dir=base_dir)
    for index in range(len(manifest)):
        where, folder = manifest.where(index), manifest.base_dir(index)
        try:
            yield Entry(where, folder, manifest[index])
        except RecordError as error:
            yield Entry(where, folder, error=error)


def _compressed_lines(path: str, base_dir: str) -> Iterator[Entry]:
    for number, line in enumerate(compressed_file_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield Entry(where, base_dir, parse_json_line(line, where))
        except RecordError as error:
            yield Entry(where, base_dir, error=error)


def compressed_file_lines(path: str) -> Iterator[bytes]:
    """The lines of a file compressed with gzip.

    Raises:
        RecordError: it is damaged; what follows is lost, so there is no going on.
    """
    with opened(path) as raw, gzip.open(raw) as file:
        try:
            yield from file
        except (OSError, EOFError, zlib.error) as error:
            raise RecordError(path, f"is damaged: {error}; make it again") from error


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """A record that has keys.

    Raises:
        RecordError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise RecordError(where, f"a record is an object, not a {type(value).__name__}")
    return value
