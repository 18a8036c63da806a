"""JSON files of one value: written in one step, in the project's one format."""

from __future__ import annotations

import json
import os
from typing import Any

from .atomic import atomic_write


def json_text(value: Any, *, indent: int | None = 2, ensure_ascii: bool = False) -> str:
    """JSON for people and programs, without a line end.

    Args:
        value: what it says.
        indent: blanks before each level; None: all on one line.
        ensure_ascii: escape all characters beyond ASCII; needed where a text may hold half a character.

    Raises:
        ValueError: NaN or infinity is in it, which no other program reads.
    """
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2, ensure_ascii: bool = False) -> None:
    """Writes what `json_text` gives; the file appears whole or not at all. Its folder must exist.

    Raises:
        ValueError: see `json_text`.
    """
    text = json_text(value, indent=indent, ensure_ascii=ensure_ascii)
    with atomic_write(path) as file:
        file.write(text + "\n")
