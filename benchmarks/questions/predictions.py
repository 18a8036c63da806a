"""Files of replies to the questions of a benchmark: the published scorers' input, and the logs of our own runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from audiollm.data.files.hashing import file_sha256
from audiollm.data.files.json_lines import Record, read_json_lines

LOG_KINDS = ("run", "prediction", "failure")
REPLY_CUT, RECORDING_CUT = "reply_cut", "recording_cut"


@dataclass
class PredictionFile:
    """A file of predictions; its records can be gone through once, or as often as wanted after `read`.

    Attributes:
        path: the file.
        header: what a run of ours says about itself; None for a file of the published layout.
        records: the published layout's objects; of a log, its lines of the kind "prediction".
        problems: what was left out, in words; complete when the records have been read.
        failed: ids of a log whose last line is a failure; complete when the records have been read.
        cut: of a log, ids of replies that reached the longest length (``REPLY_CUT``), and of questions of whose
            recording the model heard only the beginning (``RECORDING_CUT``); complete when the records have been read.
    """

    path: Path
    header: Record | None
    records: Iterable[Record]
    problems: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    cut: dict[str, set[str]] = field(default_factory=lambda: {REPLY_CUT: set(), RECORDING_CUT: set()})

    def read(self) -> PredictionFile:
        """Reads all records, so that they can be gone through more than once."""
        self.records = list(self.records)
        return self

    def reply_key(self, chosen: str | None, published: str) -> str:
        """The field of the replies.

        Args:
            chosen: the one that was asked for, if any.
            published: the one where the published scorer looks.

        Raises:
            ValueError: one was asked for, but the file is a log of ours, which has its own.
        """
        if chosen is not None and self.header is not None:
            raise ValueError(f"prediction_key={chosen}: {self.path} is a log, whose replies have a field of their own")
        return chosen or published

    @property
    def sha256(self) -> str:
        return file_sha256(self.path)


def open_predictions(path: str) -> PredictionFile:
    """Opens predictions.

    Args:
        path: JSON list, or one JSON object a line (the first character tells, the name does not).

    Raises:
        ValueError: if a line is not a JSON object (also while the records are read); an unfinished last line and blank
            lines are left out with a warning.
        OSError: if the file cannot be read.
    """
    if not Path(path).is_file():
        told = "is a folder" if Path(path).is_dir() else "is not there"
        raise FileNotFoundError(f"{path} {told}: give a file of predictions, such as the predictions.jsonl of a run")
    with open(path, "rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"[":
        return PredictionFile(Path(path), None, _list_of_objects(path))
    problems: list[str] = []
    lines = read_json_lines(path, problems=problems)
    first = next(lines, None)
    if first is None:
        return PredictionFile(Path(path), None, [], problems)
    predictions = PredictionFile(Path(path), None, itertools.chain([first], lines), problems)
    if first.get("kind") in LOG_KINDS:
        if first["kind"] != "run":
            raise ValueError(f"{path} is a log without its first line, which says what was asked; predict again")
        predictions.header = first
        predictions.records = _log_lines(predictions, lines)
    return predictions


def _list_of_objects(path: str) -> list[Record]:
    try:
        records = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); was it written to its end?") from error
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: entry {number} is a JSON {type(record).__name__}, not an object")
    return list(records)


def _log_lines(predictions: PredictionFile, lines: Iterable[Record]) -> Iterator[Record]:
    for line in lines:
        kind = line.get("kind")
        if kind == "prediction":
            predictions.failed.discard(str(line.get("id")))
            for mark, ids in predictions.cut.items():
                if line.get(mark):
                    ids.add(str(line.get("id")))
            yield line
        elif kind == "failure":
            predictions.failed.add(str(line.get("id")))
        elif kind != "run":
            raise ValueError(f"{predictions.path}: a line of the kind {kind!r}: is it the log of another version?")
