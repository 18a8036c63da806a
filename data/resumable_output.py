"""An output that grows record by record and goes on where a killed run stopped."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from audiollm.data.audio.opening import AudioError
from audiollm.data.files.atomic import sync_folder
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import json_line, read_finished_lines, refuse_other_run
from audiollm.data.files.lock import locked_file
from audiollm.data.files.parquet import check_parquet_values, write_parquet

from .manifest import MANIFEST_SUFFIXES, RecordError

JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")


class OutputReport(Protocol):
    """What `PartialOutput.resume` fills in.

    Attributes:
        resumed: records and rejections of earlier runs.
    """

    resumed: int

    def add(self, record: Any) -> None:
        """Counts a record that is done."""
        ...

    def reject(self, entry: Mapping[str, Any]) -> None:
        """Counts a record that is left out, as `PartialOutput.reject` notes it."""
        ...


_ReportT = TypeVar("_ReportT", bound=OutputReport)


class UnwritableRecordError(ValueError):
    """A record that the output cannot hold; nothing of it was written."""


class PartialOutput:
    """An output that grows: ``.partial`` (records done), ``.partial.json`` (settings) and ``.rejected.jsonl``.

    A record ends up in exactly one of the two lists, and rejections reach the file before the records that follow
    them. So the number of lines done and the rejected indices tell where to go on, wherever the process was killed.

    Args:
        output: the file.
        settings: what must be equal for a run to go on with it.
        facts: of a parquet file, see `write_parquet`.
    """

    def __init__(self, output: Path, settings: dict[str, str], facts: Mapping[str, str] | None = None) -> None:
        self._output = output
        self._facts = facts
        self._settings = settings
        self._path = output.with_name(output.name + ".partial")
        self._settings_path = output.with_name(output.name + ".partial.json")
        self.rejected_path = output.with_name(output.name + ".rejected.jsonl")
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes]

    def __enter__(self) -> PartialOutput:
        self._output.parent.mkdir(parents=True, exist_ok=True)
        try:
            alternative = "give each process its own shard (num_shards, shard)"
            self._stack.enter_context(locked_file(self._path, otherwise=alternative))
            self._file = self._stack.enter_context(open(self._path, "a+b"))
            self._check_settings()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _check_settings(self) -> None:
        """Starts afresh if there is nothing to go on with; raises if what is there belongs to another run."""
        is_empty = os.fstat(self._file.fileno()).st_size == 0
        earlier = None
        if self._settings_path.exists():
            earlier = json.loads(self._settings_path.read_text(encoding="utf-8"))
        if is_empty and (earlier != self._settings or self._output.exists()):
            self.rejected_path.unlink(missing_ok=True)
            write_json(self._settings_path, self._settings)
            return
        found = dict.fromkeys(self._settings, "unknown") if earlier is None else earlier
        refuse_other_run(
            self._path, found, self._settings, otherwise="delete it to start afresh, or choose another output"
        )

    def resume(self, start: int, report: _ReportT) -> _ReportT:
        """Drops what was half written and counts what is done from index ``start`` on."""
        num_records = 0
        for record in _complete_lines(self._file):
            report.add(record)
            num_records += 1
        rejected = self._resume_rejected(start, num_records) if self.rejected_path.exists() else []
        for entry in rejected:
            report.reject(entry)
        report.resumed = num_records + len(rejected)
        return report

    def _resume_rejected(self, start: int, num_records: int) -> list[dict[str, Any]]:
        """Drops the rejections that lie behind the records done; returns those that are left."""
        with open(self.rejected_path, "r+b") as file:
            lines = list(_complete_lines(file))
            rejected = {line["index"] for line in lines}
            # Walk over the records done; rejections behind them were noted just before the process was killed.
            following, left = start, num_records
            while left or following in rejected:
                left -= following not in rejected
                following += 1
            kept = [line for line in lines if line["index"] < following]
            file.seek(0)
            file.truncate()
            file.writelines(_line(line) for line in kept)
        return kept

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record that is done.

        Raises:
            UnwritableRecordError: the output cannot hold it.
        """
        self._file.write(output_line(record, is_parquet=self._output.suffix == ".parquet"))
        self._file.flush()

    def reject(
        self, index: int, error: AudioError | RecordError, details: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Notes a record that is left out.

        Args:
            index: of the record.
            error: what is wrong with it.
            details: more to keep, such as a reply that could not be used.

        Returns:
            What is noted.
        """
        source, reason = error.args
        entry = {"index": index, "source": source, "reason": reason, **(details or {})}
        with open(self.rejected_path, "ab") as file:
            file.write(_line(entry))
            # On the disk before any record that follows: `resume` counts on the order, also after a power cut.
            file.flush()
            os.fsync(file.fileno())
        return entry

    def discard(self) -> None:
        """Removes an output that came to nothing, so that the next run starts afresh."""
        self._path.unlink()
        self._settings_path.unlink()

    def finish(self) -> None:
        """Puts the output in its place, whole."""
        os.fsync(self._file.fileno())
        if self._output.suffix == ".parquet":
            self._file.seek(0)
            try:
                write_parquet(self._file, self._output, facts=self._facts)
            except (TypeError, ValueError, OverflowError) as error:  # what pyarrow raises for a column of several types
                fix = f"all is done, as JSONL, in {self._path}: rename that to .jsonl"
                raise ValueError(f"{self._output} cannot hold these records ({error}); {fix}") from error
            self._path.unlink()
        else:
            os.replace(self._path, self._output)
        sync_folder(self._output.parent)
        self._settings_path.unlink()


def checked_ending(
    output: str | os.PathLike[str], endings: Sequence[str] = MANIFEST_SUFFIXES
) -> str | os.PathLike[str]:
    """Returns an output whose ending says what it will hold: JSON, one object a line, or parquet.

    Args:
        output: the file.
        endings: those that can be written.

    Raises:
        ValueError: another ending, or none.
    """
    if Path(output).suffix not in endings:
        ending = Path(output).suffix
        found = f"ends in {ending}" if ending else "has no ending"
        raise ValueError(f"{os.fspath(output)} {found}; records are written as {' or '.join(endings)}: name it so")
    return output


def shard_path(output: str | os.PathLike[str], shard: int, num_shards: int) -> Path:
    """Returns where a shard is written: ``codes-00000-of-00004.jsonl``; one shard alone keeps the plain name."""
    path = Path(output)
    return path if num_shards == 1 else path.with_name(f"{path.stem}-{shard:05d}-of-{num_shards:05d}{path.suffix}")


def output_line(record: Mapping[str, Any], *, is_parquet: bool) -> bytes:
    """A record as a line of JSON, which parquet is made of, too.

    Args:
        record: what it says.
        is_parquet: whether columns will have to hold it.

    Raises:
        UnwritableRecordError: the output cannot hold it.
    """
    try:
        line = _line(record)
        if is_parquet:
            check_parquet_values(record)
    except (TypeError, ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UnwritableRecordError(f"cannot be written: {reason}") from error
    return line


def _line(record: Mapping[str, Any]) -> bytes:
    return json_line(record, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Writes what data sets hold beside JSON's own types: dates, arrays."""
    for method in ("isoformat", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a record holds a {type(value).__name__}, which JSON cannot hold; remove that column")


def _complete_lines(file: IO[bytes]) -> Iterator[Any]:
    """Yields the records of a file, then cuts off the half line that a killed process may have left."""
    end = 0
    for end, record in read_finished_lines(file):  # noqa: B007  # the last end is where to cut
        yield record
    file.seek(end)
    file.truncate()
