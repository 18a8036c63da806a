"""The log of a judge's verdicts: a file that only grows; a stopped run goes on, and failures are asked again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiollm.data.files.json_lines import AppendOnlyLog, Record
from audiollm.data.files.lock import locked_folder

HEADER, VERDICT, FAILURE = "judging", "verdict", "failure"
CUT = "judge_replies_cut"


class VerdictLog(AppendOnlyLog):
    """A file of verdicts, open and held with its folder while the block lasts: results lie beside it.

    Args:
        path: of the file; made if it is not there.
        header: what was judged, by whom and how.

    Attributes:
        verdicts: what was said of each item, by id.
        failures: why an item has no verdict, by id.
        attempts: how often each item was tried, by id.
        cut: of the judge's replies on an item, in the last attempt, how many were cut at the longest length; by id.

    Raises:
        ValueError: if the file is of another judging (what differs is named), damaged, or another process is at work.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        super().__init__(path, header, header_kind=HEADER, kinds=(VERDICT, FAILURE))
        self.verdicts: dict[str, Record] = {}
        self.failures: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.cut: dict[str, int] = {}
        self._held = contextlib.ExitStack()

    def __enter__(self) -> VerdictLog:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked_folder(self.path.parent))
            super().__enter__()
            stack.push(super().__exit__)
            for line in self.read()[1:]:
                self._take(line)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def add_verdict(self, item: str, verdict: Mapping[str, Any]) -> None:
        """Writes down what the judge says of an item."""
        self._add({"kind": VERDICT, "id": item, **verdict})

    def add_failure(self, item: str, error: str, num_cut: int = 0) -> None:
        """Writes down why an item has no verdict, and how many of the judge's replies on it were cut."""
        self._add({"kind": FAILURE, "id": item, "error": error, **({CUT: num_cut} if num_cut else {})})

    def _add(self, line: Record) -> None:
        self.append(line)
        self._take(line)

    def _take(self, line: Record) -> None:
        item = line["id"]
        self.attempts[item] = self.attempts.get(item, 0) + 1
        self.cut[item] = line.get(CUT, 0)
        if line["kind"] == VERDICT:
            self.verdicts[item] = line
            self.failures.pop(item, None)
        else:
            self.failures[item] = line["error"]
