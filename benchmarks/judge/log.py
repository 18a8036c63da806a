"""What a judge said of each item: a file that only grows; a stopped run goes on, and failures are asked again."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from audiollm.data.chat.base import ChatError
from audiollm.data.files.json_lines import cut_unfinished_line, read_log_lines
from audiollm.data.files.lock import locked_folder

logger = logging.getLogger(__name__)

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


def judge_items(
    items: Sequence[str],
    judge: Callable[[str, int], Line],
    log: VerdictLog,
    *,
    concurrency: int,
    max_failures: int = 10,
    progress: bool = False,
) -> None:
    """Judges the items that have no verdict yet, several at a time.

    Args:
        items: ids of all items.
        judge: gives the verdict on an item, from its id and the number of attempts before: what goes into the file
            beside ``kind`` and ``id``. It raises ChatError where there is none.
        log: where verdicts go.
        concurrency: items at a time.
        max_failures: stop when so many in a row get no verdict.
        progress: show a progress bar.

    Raises:
        ChatError: if the judge cannot answer at all, or fails too often in a row.
    """
    left = [item for item in items if item not in log.verdicts]
    in_a_row = 0
    with ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as executor:
        futures = {executor.submit(judge, item, log.attempts.get(item, 0)): item for item in left}
        try:
            for future in tqdm(as_completed(futures), total=len(left), unit="item", disable=not progress):
                item = futures[future]
                try:
                    log.write({"kind": VERDICT, "id": item, **future.result()})
                    in_a_row = 0
                except ChatError as error:
                    log.write({"kind": FAILURE, "id": item, "error": str(error)})
                    in_a_row += 1
                    if error.fatal or in_a_row >= max_failures:
                        raise ChatError(f"the judge gave up ({error}); run again to go on", fatal=True) from error
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
