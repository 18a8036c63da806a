"""Logs of a model's answers, which only grow, and the one file of predictions that is made of them.

Each process of a run appends to its own log, ``predictions.rank<n>.jsonl``: a line that says what run it is, then a
line for each question, written whole. A killed process loses at most the line it was writing. The next run, on any
number of processes, reads all logs and asks only what is missing. ``predictions.jsonl`` is made of the logs when all
questions have been asked: in the order of the questions and without times, so that its bytes depend neither on the
number of processes nor on how often they were killed.

A log is locked by the process that writes it. The lock is the system's and dies with its owner.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_lines import AppendOnlyLog, json_line, read_log_lines, refuse_other_run
from audiollm.data.files.lock import locked_file

logger = logging.getLogger(__name__)

MERGED_NAME = "predictions.jsonl"
RUN, PREDICTION, FAILURE = "run", "prediction", "failure"
# May differ between runs that go on from each other.
_OF_THE_MOMENT = ("started", "versions")
_LOG_NAME = re.compile(r"predictions\.rank(\d+)\.jsonl")


@dataclass
class LoggedAnswers:
    """What the logs of a folder hold.

    Attributes:
        predictions: the line of each question that was answered, by id.
        failures: the error of each question that was asked in vain and not answered since, by id.
    """

    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes a line in; the first answer to a question counts, of errors the last."""
        if line["kind"] == PREDICTION:
            self.predictions.setdefault(line["id"], dict(line))
            self.failures.pop(line["id"], None)
        elif line["id"] not in self.predictions:
            self.failures[line["id"]] = line["error"]


class PredictionLog:
    """The log of one process, open and locked while the block lasts.

    Args:
        folder: of the run; made if it is not there.
        header: what run it is: ``benchmark``, ``data_sha256``, ``prompt``, ``model``, ``decoding`` …, and ``started``
            and ``versions``, which may differ between runs that go on from each other.
        rank: of this process. Rank 0 must be entered first and alone; it checks the logs of all.

    Raises:
        ValueError: the folder holds another run, a log is damaged, or another process is writing.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], rank: int = 0) -> None:
        self.folder = folder
        path = folder / f"predictions.rank{rank}.jsonl"
        self._log = AppendOnlyLog(
            path,
            header,
            header_kind=RUN,
            kinds=(PREDICTION, FAILURE),
            may_differ=_OF_THE_MOMENT,
            check=self._check_all if rank == 0 else None,
        )

    def __enter__(self) -> PredictionLog:
        self._log.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._log.__exit__()

    def predicted(self, question_id: str, prediction: str, **facts: Any) -> None:
        """Writes down an answer, and facts such as the options as asked, seconds and the number of the attempt."""
        self._log.append({"kind": PREDICTION, "id": question_id, "prediction": prediction, **facts})

    def failed(self, question_id: str, error: str, attempt: int) -> None:
        """Writes down that a question was asked in vain; a later run asks it again."""
        self._log.append({"kind": FAILURE, "id": question_id, "error": error, "attempt": attempt})

    def read(self) -> LoggedAnswers:
        """What all processes of this and of earlier runs have written."""
        answers = LoggedAnswers()
        for path in self._paths():
            for line in _read_lines(path)[1:]:
                answers.add(line)
        return answers

    def merge(self, question_ids: Sequence[str]) -> Path:
        """Makes ``predictions.jsonl`` of all logs, in the order of the questions; for rank 0, when all are done."""
        answers = self.read()
        header = _read_lines(self.folder / "predictions.rank0.jsonl")[0]
        del header["started"]
        path = self.folder / MERGED_NAME
        with atomic_write(path) as file:
            file.write(json_line(header))
            for question_id in question_ids:
                if question_id in answers.predictions:
                    line = answers.predictions[question_id]
                    timeless = {key: line[key] for key in line if key not in ("seconds", "attempt")}
                    file.write(json_line(timeless))
                elif question_id in answers.failures:
                    error = answers.failures[question_id]
                    file.write(json_line({"kind": FAILURE, "id": question_id, "error": error}))
        return path

    def _paths(self) -> list[Path]:
        """What there is to read; the merged file first, since logs may know more by now."""
        merged = self.folder / MERGED_NAME
        return [*([merged] if merged.exists() else []), *log_paths(self.folder)]

    def _check_all(self) -> None:
        """Refuses logs of other runs, and processes of a dead run that still write; this one's log is held already."""
        for path in self._paths():
            # What a killed process left half written is cut off by the next one that writes there.
            is_of_another = path not in (self.folder / MERGED_NAME, self._log.path)
            with locked_file(path) if is_of_another else contextlib.nullcontext():
                lines = _read_lines(path)
            if lines:
                self._check_header(path, lines[0])
        for leftover in self.folder.glob(f".{MERGED_NAME}.*.tmp"):
            leftover.unlink()  # of a process that was killed while it merged

    def _check_header(self, path: Path, found: Mapping[str, Any]) -> None:
        refuse_other_run(
            path,
            found,
            self._log.header,
            may_differ=_OF_THE_MOMENT,
            otherwise="choose another output, or delete the folder to start afresh",
        )
        if found.get("versions") != self._log.header.get("versions"):
            logger.warning("%s was begun with other versions of packages: answers may differ from theirs", path)


def log_paths(folder: Path) -> list[Path]:
    """The logs of a folder, by rank."""
    found = {path: _LOG_NAME.fullmatch(path.name) for path in folder.iterdir()}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(found[path][1]))  # type: ignore[index]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return read_log_lines(path, RUN, (PREDICTION, FAILURE))
