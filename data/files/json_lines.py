"""Files of JSON lines: read, written whole, or grown line by line by runs that may be stopped and go on.

Lines are split as bytes: lines of text also end at characters that JSON strings may hold as they are, such as U+2028.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .atomic import atomic_write
from .json_document import write_json
from .lock import locked_file
from .text import is_whole

logger = logging.getLogger(__name__)

Record = dict[str, Any]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # what editors of Windows put before UTF-8


def json_line(
    record: Any, *, ensure_ascii: bool = False, allow_nan: bool = True, default: Callable[[Any], Any] | None = None
) -> str:
    """One line of JSON, with its line end.

    Args:
        record: what it says.
        ensure_ascii: escape all characters beyond ASCII. Else only texts with half of a character in them, as endpoints
            may send it, are escaped: UTF-8 cannot hold those.
        allow_nan: write NaN and infinity, which are no JSON but which Python reads.
        default: makes JSON of other values, as for ``json.dumps``.

    Raises:
        TypeError: a value is none of JSON's.
        ValueError: NaN or infinity where they are not allowed.
    """
    text = json.dumps(record, ensure_ascii=ensure_ascii, allow_nan=allow_nan, default=default)
    if not is_whole(text):
        text = json.dumps(record, allow_nan=allow_nan, default=default)
    return text + "\n"


def write_json_lines(
    path: str | os.PathLike[str],
    records: Iterable[Any],
    *,
    ensure_ascii: bool = False,
    allow_nan: bool = True,
) -> None:
    """Writes one JSON object a line; the file appears whole or not at all. Its folder is made.

    Args:
        path: the file to write or replace.
        records: what the lines hold; they may be made while they are written.
        ensure_ascii: see `json_line`.
        allow_nan: likewise.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        for record in records:
            file.write(json_line(record, ensure_ascii=ensure_ascii, allow_nan=allow_nan))


def read_json_lines(path: str | os.PathLike[str], *, problems: list[str] | None = None) -> Iterator[Record]:
    """Reads one JSON object a line; blank lines are left out.

    Args:
        path: the file. A byte order mark at its start is left out.
        problems: if given, an unfinished last line, as a killed process leaves it, is left out too, and this gets a
            sentence about everything that is.

    Raises:
        ValueError: a line is not a JSON object; its number is named.
        OSError: the file cannot be read.
    """
    return (record for _, record in read_numbered_lines(path, problems=problems))


def read_numbered_lines(
    path: str | os.PathLike[str], *, problems: list[str] | None = None
) -> Iterator[tuple[int, Record]]:
    """Does what `read_json_lines` does, and yields the number of each line too, from 1, for messages about it."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.strip():
                if problems is not None:
                    _note(problems, f"{path}: line {number} is blank and left out")
                continue
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                if problems is not None and not line.endswith(b"\n"):
                    _note(problems, f"{path}: line {number}, the last, is unfinished and left out")
                    return
                raise ValueError(f"{path}: line {number} is not JSON ({error}); mend or remove it") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}: line {number} is a JSON {type(record).__name__}, not an object")
            yield number, record


def read_finished_lines(file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """Reads the JSON lines of an open file up to the first that is unfinished or damaged.

    Args:
        file: a file of bytes; it is read from its start.

    Yields:
        The position at which each line ends, and what it holds.
    """
    file.seek(0)
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
        except ValueError:
            return
        end += len(line)
        yield end, record


def read_log_lines(path: Path, header_kind: str, kinds: Sequence[str]) -> list[Record]:
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


class AppendOnlyLog:
    """A file of JSON lines that only grows: the first says what run it is of, the others what became of items.

    One process writes it while the block lasts; others may read. A killed process loses at most the line it was
    writing, which the next one cuts off.

    Args:
        path: the file; it and its folder are made if they are not there.
        header: what run it is of; the line gets ``kind`` too.
        header_kind: the ``kind`` of the first line.
        kinds: those of the others.
        may_differ: names in the header that a run that goes on may have otherwise, such as when it was started.
        check: called on entering, when the file is held and before anything is written; raises ValueError if what lies
            beside it forbids to go on.

    Raises:
        ValueError: on entering: the file is of another run, naming what differs; it is damaged; or another process is
            writing it.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        *,
        header_kind: str,
        kinds: Sequence[str],
        may_differ: Sequence[str] = (),
        check: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self.header: Record = {"kind": header_kind, **header}
        self._kinds = tuple(kinds)
        self._may_differ = tuple(may_differ)
        self._check = check
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes]

    def __enter__(self) -> AppendOnlyLog:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked_file(self.path))
            self._file = stack.enter_context(open(self.path, "a+b"))
            cut_unfinished_line(self._file)
            if self._check is not None:
                self._check()
            lines = self.read()
            if lines:
                refuse_other_run(self.path, lines[0], self.header, may_differ=self._may_differ)
            else:
                self.append(self.header)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line; see `append_line`."""
        append_line(self._file, line)

    def read(self) -> list[Record]:
        """All lines, the header first; see `read_log_lines`."""
        return read_log_lines(self.path, self.header["kind"], self._kinds)


def append_line(file: IO[bytes], record: Any, *, allow_nan: bool = True) -> None:
    """Adds a line to a file that is open for appending, and hands it to the system.

    A process that is killed later loses none.

    Raises:
        ValueError: NaN or infinity where they are not allowed; nothing is written then.
    """
    file.write(json_line(record, allow_nan=allow_nan).encode())
    file.flush()


def cut_unfinished_line(file: IO[bytes]) -> None:
    """Cuts off what a killed process left half written; then the file is at its end."""
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def check_same_run(
    path: str | os.PathLike[str],
    identity: Mapping[str, Any],
    *,
    output: str | os.PathLike[str] | None = None,
    may_differ: Sequence[str] = (),
    otherwise: str = "choose another output, or delete it to start afresh",
) -> bool:
    """Writes down what run an output is of, or refuses to go on with the output of another one.

    Args:
        path: the JSON file that holds the identity; written if it is not there.
        identity: what must be equal for what is there to be kept: settings, hashes of data and models, all of it JSON.
        output: what the message calls the output; by default ``path``.
        may_differ: names in the identity that may differ.
        otherwise: what the user can do.

    Returns:
        Whether there was a run of this identity.

    Raises:
        ValueError: the output is of another run; what differs is named.
    """
    path = Path(path)
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        refuse_other_run(output or path, found, identity, may_differ=may_differ, otherwise=otherwise)
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, identity)
    return False


def refuse_other_run(
    output: str | os.PathLike[str],
    found: Mapping[str, Any],
    identity: Mapping[str, Any],
    *,
    may_differ: Sequence[str] = (),
    otherwise: str = "choose another output, or delete it to start afresh",
) -> None:
    """Compares what an output was begun with; see `check_same_run`.

    Raises:
        ValueError: they differ, as ``model.revision (a, now b)``.
    """
    identity = json.loads(json.dumps(identity))  # as `found` was read: tuples are lists there
    changed = list(_differences(found, identity, may_differ))
    if changed:
        raise ValueError(f"{output} was begun with another {'; '.join(changed)}; {otherwise}")


def _differences(
    found: Mapping[str, Any], identity: Mapping[str, Any], may_differ: Sequence[str], prefix: str = ""
) -> Iterator[str]:
    for key in dict.fromkeys([*identity, *found]):
        if key in may_differ:
            continue
        before, now = found.get(key), identity.get(key)
        if before == now:
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, (), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} ({before}, now {now})"


def _note(problems: list[str], problem: str) -> None:
    logger.warning("%s", problem)
    problems.append(problem)
