"""How often a unit was begun and not ended: what kills its workers is found, named, and not tried for ever."""

from __future__ import annotations

import os
import platform
from collections import Counter
from pathlib import Path
from typing import IO, Any

from audiollm.data.files.json_lines import append_line, cut_unfinished_line, read_finished_lines

DEATHS_BEFORE_CARE = 2  # then the records go through one by one, and alone in their process
DEATHS_AT_A_RECORD = 2  # then it is that record which kills
MOST_DEATHS = 10  # then the unit is given up


class Tries:
    """A list of the tries of a unit, in a file beside its lock; whoever holds the lock may use it.

    Args:
        path: the file; it is there only while the unit is not done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self.deaths = 0
        deaths_at: Counter[int] = Counter()
        for try_lines in self._earlier_tries():
            if not any("ended" in line for line in try_lines):
                self.deaths += 1
                deaths_at.update([line["record"] for line in try_lines if "record" in line][-1:])
        self.killers = {record for record, deaths in deaths_at.items() if deaths >= DEATHS_AT_A_RECORD}
        """Records at which workers died again and again."""

    @property
    def needs_care(self) -> bool:
        """Whether workers died so often that it should be found out where."""
        return self.deaths >= DEATHS_BEFORE_CARE

    @property
    def is_hopeless(self) -> bool:
        """Whether workers died so often that the unit is given up."""
        return self.deaths >= MOST_DEATHS

    def begin(self) -> None:
        """Notes a try. A kill -9 that follows does not lose the note."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a+b")  # noqa: SIM115  # open until the try ends
        cut_unfinished_line(self._file)
        append_line(self._file, {"process": os.getpid(), "host": platform.node()})

    def at(self, record: int) -> None:
        """Notes the record that is next."""
        assert self._file is not None  # begun
        append_line(self._file, {"record": record})

    def end(self, reason: str) -> None:
        """Notes that a try ended without success, but by its own will."""
        if self._file is not None:
            append_line(self._file, {"ended": reason})
            self._file.close()

    def forget(self) -> None:
        """Removes all notes: the unit is done, or is to be tried afresh by the next run."""
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _earlier_tries(self) -> list[list[dict[str, Any]]]:
        tries: list[list[dict[str, Any]]] = []
        if self._path.exists():
            with open(self._path, "rb") as file:
                for _, line in read_finished_lines(file):
                    if "process" in line:
                        tries.append([])
                    tries[-1].append(line)
        return tries
