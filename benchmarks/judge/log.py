"""What a judge said of each item: a file that only grows; a stopped run goes on, and failures are asked again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from audiollm.data.files.json_lines import cut_unfinished_line, read_log_lines
from audiollm.data.files.lock import locked_folder

HEADER, VERDICT, FAILURE = "judging", "verdict", "failure"

Line = dict[str, Any]


class VerdictLog:
    """A file of verdicts, open and locked while the block of :func:`open_verdicts` lasts.

    Attributes:
        path: of the file.
        verdicts: what was said of each item, by id.
        failures: why an item has no verdict, by id.
        attempts: how often each item was tried, by id.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.verdicts: dict[str, Line] = {}
        self.failures: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self._file = file

    def write(self, line: Mapping[str, Any]) -> None:
        """Takes a line in and appends it."""
        self.take(line)
        self._file.write((json.dumps(line) + "\n").encode())
        self._file.flush()

    def take(self, line: Mapping[str, Any]) -> None:
        """Takes a line in that is in the file already."""
        if line["kind"] == HEADER:
            return
        item = line["id"]
        self.attempts[item] = self.attempts.get(item, 0) + 1
        if line["kind"] == VERDICT:
            self.verdicts[item] = dict(line)
            self.failures.pop(item, None)
        else:
            self.failures[item] = line["error"]


@contextlib.contextmanager
def open_verdicts(path: Path, header: Mapping[str, Any]) -> Iterator[VerdictLog]:
    """Opens a file of verdicts; a half-written last line is cut off.

    Args:
        path: of the file; made if it is not there.
        header: what was judged, by whom and how.

    Raises:
        ValueError: if the file is of another judging (what differs is named), damaged, or another process is at work.
    """
    header = {"kind": HEADER, **json.loads(json.dumps(header))}
    with locked_folder(path.parent), open(path, "a+b") as file:
        cut_unfinished_line(file)
        log = VerdictLog(path, file)
        lines = read_log_lines(path, HEADER, (VERDICT, FAILURE))
        if lines:
            changed = [name for name in {**lines[0], **header} if lines[0].get(name) != header.get(name)]
            if changed:
                told = "; ".join(f"{name} ({lines[0].get(name)}, now {header.get(name)})" for name in changed)
                raise ValueError(f"{path} was begun with another {told}. Choose another output, or delete the file")
        else:
            log.write(header)
        for line in lines:
            log.take(line)
        yield log
