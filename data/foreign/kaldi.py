"""Data folders of Kaldi, ESPnet and WeNet: ``wav.scp``, ``text``, ``segments`` and ``utt2spk`` share their keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from audiollm.data.manifest import RecordError

from .base import Entry, Reading, ShapeError
from .clips import clip_of, segment
from .files import opened

WAV_SCP = "wav.scp"
_ARCHIVE = re.compile(r"\.ark(:\d+)?$")


@dataclass(frozen=True)
class _Line:
    """A line ``key value``; the value is empty where there is nothing behind the key."""

    where: str
    key: str
    value: str
    problem: str = ""


def is_kaldi_folder(path: str) -> bool:
    """Whether a path is such a folder, or its ``wav.scp``."""
    return os.path.isfile(os.path.join(path, WAV_SCP)) or (os.path.basename(path) == WAV_SCP and os.path.isfile(path))


def is_kaldi(record: Mapping[str, Any]) -> bool:
    """Whether a record is one of `kaldi_entries`."""
    return {"key", "wav"} <= set(record)


def kaldi_entries(path: str, base_dir: str | None) -> Iterator[Entry]:
    """Every utterance of a folder: the recordings, or their segments where ``segments`` is there.

    Whatever has no counterpart is an entry with an error: a segment of no recording, an utterance without a text where
    there are texts, a text without sound, a key that is there twice.

    Args:
        path: the folder, or its ``wav.scp``.
        base_dir: the folder that relative paths start from; by default the data folder.

    Raises:
        RecordError: there is no ``wav.scp``.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    base = base_dir or os.path.abspath(folder)
    texts, text_problems = _table(folder, "text")
    speakers, speaker_problems = _table(folder, "utt2spk")
    recordings, recording_problems = _table(folder, WAV_SCP)
    if recordings is None:
        raise RecordError(folder, f"has no {WAV_SCP}")
    has_segments = os.path.isfile(os.path.join(folder, "segments"))
    heard: set[str] = set()
    for line in recording_problems + text_problems + speaker_problems:
        yield _bad(line, base, line.problem)
    for line in _lines(folder, "segments" if has_segments else WAV_SCP):
        if line.key in heard:
            if has_segments:  # in wav.scp it has been noted
                yield _bad(line, base, f"{line.key} is there twice")
            continue
        if line.problem:
            if has_segments:
                yield _bad(line, base, line.problem)
            continue
        heard.add(line.key)
        value: dict[str, Any] = {"key": line.key, "wav": line.value}
        if has_segments:
            name, *times = line.value.split()
            if name not in recordings or len(times) != 2:
                reason = (
                    "a segment is: key, recording, start, end" if len(times) != 2 else f"{name} is not in {WAV_SCP}"
                )
                yield _bad(line, base, reason)
                continue
            value |= {"wav": recordings[name].value, "start": times[0], "end": times[1]}
        if texts is not None:
            if line.key not in texts:
                yield _bad(line, base, f"{line.key} has no line in text")
                continue
            value["text"] = texts[line.key].value
        if speakers is not None and line.key in speakers:
            value["speaker"] = speakers[line.key].value
        yield Entry(line.where, base, value)
    for text in (texts or {}).values():
        if text.key not in heard:
            yield _bad(text, base, f"{text.key} has no sound in {'segments' if has_segments else WAV_SCP}")


def read_kaldi(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """An utterance: its file, with ``start`` and ``end`` where it is a segment, its text and its speaker.

    Raises:
        ShapeError: its sound comes out of a command, which is never run, or out of an archive.
    """
    source = record["wav"]
    if source.endswith("|"):
        raise ShapeError(WAV_SCP, "is the output of a command, and commands are not run; write the sound to a file")
    if _ARCHIVE.search(source):
        raise ShapeError(WAV_SCP, "is a Kaldi archive; write the sound to files")
    if not source:
        raise ShapeError(WAV_SCP, "names no file")
    times = segment(record["start"], record["end"], "segments") if "start" in record else {}
    done = {"key", "wav", "start", "end"}
    return [clip_of(record, source, text_keys=("text",), text_key=text_key, done=done, id=record["key"], **times)]


def _bad(line: _Line, base: str, reason: str) -> Entry:
    return Entry(line.where, base, error=RecordError(line.where, reason))


def _table(folder: str, name: str) -> tuple[dict[str, _Line] | None, list[_Line]]:
    """The lines of a file by their keys, and those that are bad; None if there is no such file."""
    if not os.path.isfile(os.path.join(folder, name)):
        return None, []
    table: dict[str, _Line] = {}
    problems: list[_Line] = []
    for line in _lines(folder, name):
        if line.problem or line.key in table:
            problems.append(_Line(line.where, line.key, "", line.problem or f"{line.key} is there twice"))
        else:
            table[line.key] = line
    return table, problems


def _lines(folder: str, name: str) -> Iterator[_Line]:
    path = os.path.join(folder, name)
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                words = line.decode().split(maxsplit=1)
            except UnicodeDecodeError as error:
                yield _Line(where, f"line {number}", "", f"is not UTF-8 text ({error.reason})")
                continue
            if words:
                yield _Line(where, words[0], words[1].strip() if len(words) > 1 else "")
