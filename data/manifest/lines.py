"""JSON Lines as a manifest: one record a line, read where it lies in the file."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from .base import Manifest, RecordError

NOT_JSON = "is not JSON"
MAX_DEPTH = 100  # levels of brackets in a record


class JsonLines(Manifest):
    """One JSON value per line, UTF-8; blank lines are skipped. Only the lines' positions are held in memory.

    Args:
        path: the file.
        base_dir: folder that relative paths start from; the file's own by default.
        plain_paths: a line that is not JSON (no ``{``, ``[`` or ``"`` in front) stands for itself, as a path.
    """

    def __init__(self, path: str | os.PathLike[str], base_dir: str | None = None, plain_paths: bool = False) -> None:
        self.name = os.fspath(path)
        self._path = os.path.abspath(path)
        self._base_dir = base_dir or os.path.dirname(self._path)
        self._plain_paths = plain_paths
        self._offsets = array("q")
        self._blank_lines = array("q")  # numbers of records that come before each blank line
        digest = hashlib.sha256()
        position = 0
        # Bytes on purpose: offsets count them, and lines of text also end at characters inside JSON texts (U+2028).
        with open(self._path, "rb") as file:
            for line in file:
                digest.update(line)
                if line.strip():
                    self._offsets.append(position)
                else:
                    self._blank_lines.append(len(self._offsets))
                position += len(line)
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    def where(self, index: int) -> str:
        return f"{self.name}:{index + 1 + bisect_right(self._blank_lines, index)}"

    def base_dir(self, index: int) -> str | None:
        return self._base_dir

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def _record(self, index: int) -> Any:
        return parse_json_line(self._line(index), self.where(index), self._plain_paths)

    def _line(self, index: int) -> bytes:
        # Opened for each record: a descriptor shared by forked workers would share its position too.
        with open(self._path, "rb") as file:
            file.seek(self._offsets[index])
            return file.readline()


def parse_json_line(line: bytes, where: str, plain_paths: bool = False) -> Any:
    """What a line of a JSON Lines file holds.

    Args:
        line: UTF-8.
        where: file and line, for messages.
        plain_paths: as for `JsonLines`.

    Raises:
        RecordError: it is not JSON, nested too deeply, or not UTF-8.
    """
    try:
        text = line.decode("utf-8-sig").strip()  # -sig: editors of Windows put a byte order mark before UTF-8
        if "\0" in text:
            raise RecordError(where, "holds NUL bytes, as half-written files do; remove the line")
        if plain_paths and not text.startswith(("{", "[", '"')):
            return text
        return _of_bounded_depth(json.loads(text), text)
    except RecordError:
        raise
    except UnicodeDecodeError as error:
        raise RecordError(where, f"is not UTF-8 text (byte {error.start}: {error.reason})") from error
    except json.JSONDecodeError as error:
        raise RecordError(where, f"{NOT_JSON}: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RecordError(where, "is not a record: brackets are nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise RecordError(where, f"is not a record: {error}") from error


def _of_bounded_depth(value: Any, text: str) -> Any:
    """Returns the value of a JSON text if programs can walk through it that call themselves for every level.

    Raises:
        RecursionError: it is nested deeper than any record.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH):
            inner = (item.values() if isinstance(item, dict) else item for item in level)
            level = [item for items in inner if not isinstance(items, str) for item in _containers(items)]
            if not level:
                return value
        raise RecursionError
    return value


def _containers(items: Any) -> list[Any]:
    return [item for item in items if isinstance(item, (dict, list))] if isinstance(items, Iterable) else []
