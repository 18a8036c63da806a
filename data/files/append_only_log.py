"""Files of JSON lines that only grow: the first line says what run they are of, the others what became of items."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any


def read_log_lines(path: Path, header_kind: str, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a log; a half-written last one, which another process may be writing right now, is left out.

    Args:
        path: of the log.
        header_kind: the ``kind`` of its first line.
        kinds: those of the others.

    Raises:
        ValueError: a line is none of ours; its number is named.
    """
    lines = []
    complete = path.read_bytes().split(b"\n")[:-1]
    for number, text in enumerate(complete, start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}:{number} is no JSON ({error}): delete the line to go on without it") from error
        expected = (header_kind,) if number == 1 else tuple(kinds)
        if not isinstance(line, dict) or line.get("kind") not in expected:
            raise ValueError(f"{path}:{number} is no line of ours ({', '.join(expected)}): choose another output")
        lines.append(line)
    return lines


def cut_unfinished_line(file: IO[bytes]) -> None:
    """Cuts off what a killed process left half written; then the file is at its end."""
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
