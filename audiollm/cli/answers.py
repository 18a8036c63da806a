"""Where answers about recordings go: the terminal, a file of JSON lines that a stopped run goes on with, or files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from audiollm.data.files.replacing import refuse_existing

from .console import shown_name, write_line
from .recordings import Recording, skipped_line

logger = logging.getLogger(__name__)

Answer = Mapping[str, Any]
JSON_LINES = ".jsonl"


class Answers(Protocol):
    """Takes the answers of a run, in the order of the recordings."""

    def is_done(self, index: int, recording: Recording) -> bool:
        """Whether an earlier run answered it already."""
        ...

    def add(self, index: int, recording: Recording, answer: Any) -> None:
        """Takes an answer."""
        ...

    def reject(self, index: int, recording: Recording, reason: str) -> None:
        """Takes note of a recording that was left out."""
        ...


@dataclass(frozen=True)
class Form:
    """How an answer is written.

    Attributes:
        line: for the terminal.
        record: for JSON.
        contents: of a file, for each ending.
    """

    line: Callable[[Any], str]
    record: Callable[[Any], Answer]
    contents: Mapping[str, Callable[[Any], str]]


@contextmanager
def open_answers(
    output: str | None,
    form: Form,
    recordings: Sequence[Recording],
    *,
    kind: str | None,
    as_json: bool,
    overwrite: bool,
    settings: Mapping[str, Any],
) -> Iterator[Answers]:
    """Opens the place where answers go; it is checked at once, and kept whole whatever happens.

    What was written to a file or a folder is said in a line on stderr when all is done.

    Args:
        output: a .jsonl file for all; another file, for a single recording; a folder; or None, for the terminal.
        form: how an answer is written.
        recordings: what is answered.
        kind: "txt", "srt" …, of what a folder gets or the terminal shows; None: text, or what the output's ending says.
        as_json: one JSON object per recording, on the terminal.
        overwrite: replace what exists.
        settings: all that decides the answers: a run with others does not go on with this one's.

    Raises:
        ValueError: the output exists, belongs to another run, cannot hold so many answers, or is of no known ending.
    """
    if output is None:
        yield _on_terminal(form, recordings, kind, as_json)
        return
    if as_json:
        raise ValueError(f"--json is for the terminal: -o FILE{JSON_LINES} gets one JSON object per recording")
    path = Path(output)
    if path.suffix.lower() == JSON_LINES:
        if kind is not None:
            raise ValueError(f"--format {kind} and -o {output} contradict each other")
        refuse_existing(path, overwrite)
        with _JsonLines.opened(path, form, recordings, settings) as lines:
            yield lines
        _say_written(path, lines.num_answers, recordings)
        return
    if path.is_dir() or not path.suffix or output.endswith(("/", "\\")):
        files = _in_folder(path, form, recordings, kind or "txt", overwrite)
    else:
        files = _in_single_file(path, form, recordings, kind, overwrite)
    yield files
    _say_written(path, files.num_answers, recordings)


def _say_written(path: Path, num_answers: int, recordings: Sequence[Recording]) -> None:
    """Says on stderr what is there now: stdout is for the answers."""
    logger.setLevel(logging.INFO)
    what = "recording" if len(recordings) == 1 else "recordings"
    logger.info("%s holds the answers about %d of %d %s", path, num_answers, len(recordings), what)


def _on_terminal(form: Form, recordings: Sequence[Recording], kind: str | None, as_json: bool) -> Answers:
    if kind is None or kind == "txt":
        return _Terminal(form, as_json, with_names=len(recordings) > 1)
    if as_json:
        raise ValueError(f"--json and --format {kind} contradict each other")
    if len(recordings) > 1:
        raise ValueError(f"--format {kind} shows one recording; give -o FOLDER to write a file for each of these")
    return _Terminal(form, False, with_names=False, contents=_contents(form, kind))


def _contents(form: Form, kind: str) -> Callable[[Any], str]:
    if kind not in form.contents:
        raise ValueError(f"format {kind!r} is none of this command: use {', '.join([*form.contents, JSON_LINES[1:]])}")
    return form.contents[kind]


@dataclass(frozen=True)
class _Terminal:
    """Shows answers as they come."""

    form: Form
    as_json: bool
    with_names: bool
    contents: Callable[[Any], str] | None = None

    def is_done(self, index: int, recording: Recording) -> bool:
        return False

    def add(self, index: int, recording: Recording, answer: Any) -> None:
        if self.contents is not None:
            write_line(self.contents(answer).removesuffix("\n"))
        elif self.as_json:
            write_line(json.dumps({"audio": recording.name, **self.form.record(answer)}, ensure_ascii=False))
        else:
            line = self.form.line(answer)
            write_line(f"{shown_name(recording.name)}: {line}" if self.with_names else line)

    def reject(self, index: int, recording: Recording, reason: str) -> None:
        noted = {"audio": recording.name, "error": reason}
        write_line(json.dumps(noted, ensure_ascii=False) if self.as_json else skipped_line(recording, reason))


@dataclass
class _Progress:
    """Counts what a file of JSON lines holds already."""

    resumed: int = 0
    rejected: set[int] = field(default_factory=set)

    def add(self, record: Any) -> None:
        """Nothing but the number of records counts."""

    def reject(self, entry: Mapping[str, Any]) -> None:
        self.rejected.add(entry["index"])


class _JsonLines:
    """One JSON object per recording, in a file that a stopped run goes on with."""

    def __init__(self, partial: Any, form: Form, progress: _Progress) -> None:
        self._partial, self._form, self._progress = partial, form, progress
        self.num_answers = progress.resumed - len(progress.rejected)

    @classmethod
    @contextmanager
    def opened(
        cls, path: Path, form: Form, recordings: Sequence[Recording], settings: Mapping[str, Any]
    ) -> Iterator[_JsonLines]:
        from audiollm.data.resumable_output import PartialOutput

        told = {name: str(value) for name, value in settings.items()} | {"recordings": _fingerprint(recordings)}
        with PartialOutput(path, told) as partial:
            lines = cls(partial, form, partial.resume(0, _Progress()))
            if lines._progress.resumed:
                logger.warning("%s: goes on behind %d recordings", path, lines._progress.resumed)
            try:
                yield lines
            except BaseException:
                if not lines.num_answers:
                    partial.discard()  # nothing that a later run could go on with
                raise
            if lines._progress.rejected:
                count = len(lines._progress.rejected)
                logger.warning("%d recordings were left out; %s says why", count, partial.rejected_path)
            partial.finish()

    def is_done(self, index: int, recording: Recording) -> bool:
        return index < self._progress.resumed

    def add(self, index: int, recording: Recording, answer: Any) -> None:
        self._partial.append({"audio": recording.name, **self._form.record(answer)})
        self.num_answers += 1

    def reject(self, index: int, recording: Recording, reason: str) -> None:
        from audiollm.data.manifest import RecordError

        self._progress.reject(self._partial.reject(index, RecordError(recording.name, reason)))


def _fingerprint(recordings: Iterable[Recording]) -> str:
    """sha256 over names and sizes: enough to notice other recordings, without reading all of them."""
    digest = hashlib.sha256()
    for recording in recordings:
        source = recording.source
        contents = source if isinstance(source, bytes) else b""
        size = len(source) if isinstance(source, bytes) else os.path.getsize(source) if os.path.isfile(source) else -1
        digest.update(json.dumps([recording.name, size]).encode() + contents)
    return digest.hexdigest()


class _Files:
    """A file for each recording."""

    def __init__(self, paths: Sequence[Path], contents: Callable[[Any], str], overwrite: bool) -> None:
        self._paths, self._contents, self._overwrite = paths, contents, overwrite
        self.num_answers = 0 if overwrite else sum(path.exists() for path in paths)

    def is_done(self, index: int, recording: Recording) -> bool:
        return not self._overwrite and self._paths[index].exists()

    def add(self, index: int, recording: Recording, answer: Any) -> None:
        from audiollm.data.files.atomic import atomic_write

        path = self._paths[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(self._contents(answer))
        self.num_answers += 1

    def reject(self, index: int, recording: Recording, reason: str) -> None:
        write_line(skipped_line(recording, reason))


def _in_folder(folder: Path, form: Form, recordings: Sequence[Recording], kind: str, overwrite: bool) -> _Files:
    """A file of the folder for each recording; answers that are there already are kept."""
    contents = _contents(form, kind)
    paths = paths_in_folder(folder, recordings, kind, overwrite, instead=f"use -o FILE{JSON_LINES}")
    return _Files(paths, contents, overwrite)


def paths_in_folder(
    folder: Path, recordings: Sequence[Recording], ending: str, overwrite: bool, *, instead: str
) -> list[Path]:
    """The file of each recording in a folder; says how many are there already and are kept.

    Args:
        folder: that is written; it need not exist.
        recordings: each gets a file.
        ending: of their names, without a dot.
        overwrite: none is kept.
        instead: what else can be done where two recordings would get the same file.

    Raises:
        ValueError: two would.
    """
    paths = [folder / f"{recording.place}.{ending}" for recording in recordings]
    first: dict[Path, str] = {}
    for path, recording in zip(paths, recordings, strict=True):
        if path in first:
            raise ValueError(_told_clash(first[path], recording.name, path, instead))
        first[path] = recording.name
    _check_folder(folder)
    num_done = 0 if overwrite else sum(path.exists() for path in paths)
    if num_done:
        told = (num_done, len(paths), folder)
        logger.warning("%d of %d files are in %s already and are kept; --overwrite makes them anew", *told)
    return paths


def _told_clash(one: str, other: str, path: Path, instead: str) -> str:
    """Why what is made of two recordings cannot be written, and what helps."""
    if one == other:
        return f"{one} is given twice"
    cures = [instead] if instead else []
    cures.append(
        "name them differently" if Path(one).parent == Path(other).parent else "name the folder that holds both"
    )
    return f"{one} and {other} would both be written to {path}: {', or '.join(cures)}"


def _check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be made, before a model is loaded; it is made with the first file in it.

    Raises:
        ValueError: a file has its name, or that of a folder above it.
    """
    above = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if above.exists() and not above.is_dir():
        raise ValueError(f"{folder} is no folder to write to: {above} is a file")


def _in_single_file(
    path: Path, form: Form, recordings: Sequence[Recording], kind: str | None, overwrite: bool
) -> _Files:
    """The answer about the one recording, in a file whose ending says how."""
    ending = path.suffix.lower().removeprefix(".")
    if kind not in (None, ending):
        raise ValueError(f"--format {kind} and -o {path} contradict each other")
    contents = _contents(form, ending)
    if len(recordings) != 1:
        raise ValueError(
            f"{path} holds the answer about one recording, and {len(recordings)} are given: use -o FILE{JSON_LINES}, "
            "or -o FOLDER"
        )
    refuse_existing(path, overwrite)
    _check_folder(path.parent)
    return _Files([path], contents, overwrite)
