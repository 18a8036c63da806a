"""Clips out of other projects' manifests (lhotse, Kaldi, audiofolders, …), written once as lines and read from there.

Such a manifest may hold several clips a record, be compressed, or lie in several files; the lines can be read in any
order, by any number of processes, and cost 8 bytes each in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audiollm.data.conversion.records import clip_facts
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_lines import json_line
from audiollm.data.foreign.base import Entry, ForeignClip, Format, ShapeError
from audiollm.data.foreign.detection import find_format
from audiollm.data.foreign.files import as_object, compressed_file_lines, first_line, is_gzip
from audiollm.data.foreign.lhotse import is_lhotse, is_lhotse_folder
from audiollm.data.manifest import JsonLines, RecordError, parse_json_line

CLIPS_NAME = "clips.jsonl"


class ForeignClips(JsonLines):
    """The clips of another project's manifest; what could not be read raises its error when it is asked for.

    Args:
        path: the lines, as `open_foreign` writes them.
        name: what messages call the manifest.
        fingerprint: sha256 over the clips, in hexadecimal digits.
        folder: holds the lines as long as this object lives, if they are for it alone.
    """

    def __init__(
        self, path: Path, name: str, fingerprint: str, folder: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        super().__init__(path)
        self.name = name
        self._fingerprint = fingerprint
        self._folder = folder

    def where(self, index: int) -> str:
        return str(json.loads(self._line(index))["where"])

    def _record(self, index: int) -> Any:
        line = json.loads(self._line(index))
        if "error" in line:
            raise RecordError(line["where"], line["error"])
        return line["clip"]


def needs_lines(path: str) -> bool:
    """Whether a file or folder is a manifest of lhotse, which no other reader takes."""
    if os.path.isdir(path):
        return is_lhotse_folder(path)
    if not os.path.isfile(path):
        return False
    try:
        first = next(compressed_file_lines(path), b"") if is_gzip(path) else first_line(path).encode()
        record = parse_json_line(first, path)
    except (RecordError, UnicodeEncodeError):  # of other kinds of files, whose readers say what is wrong with them
        return False
    return isinstance(record, Mapping) and is_lhotse(record)


def open_foreign(
    path: str, format: str | None, base_dir: str | os.PathLike[str] | None = None, lines: Path | None = None
) -> ForeignClips:
    """Opens another project's manifest as clips.

    Args:
        path: the file or folder.
        format: one of `audiollm.data.foreign.formats.FORMATS`; None: what the content says.
        base_dir: folder that relative paths start from; by default that of the file they are written in.
        lines: where the clips are written; None: in a folder that goes with the result.

    Raises:
        RecordError: there is no such file, or nothing in it can be read.
        ValueError: the format is not known, or one of conversations.
    """
    found = find_format(path, format)
    if found.is_chat:
        raise ValueError(f"format={found.name!r}: records of {found.title} are read as they are; leave it out")
    if not os.path.exists(path):
        raise RecordError(path, "no such file or folder")
    folder = None
    if lines is None:
        folder = tempfile.TemporaryDirectory(prefix="audiollm-clips-")
        lines = Path(folder.name) / CLIPS_NAME
    digest = hashlib.sha256()
    with atomic_write(lines) as file:
        for entry in found.entries(path, None if base_dir is None else os.path.abspath(base_dir)):
            for value in _clips(entry, found):
                digest.update(json.dumps(value, sort_keys=True).encode())
                file.write(json_line({"where": entry.where, **value}))
    return ForeignClips(lines, path, digest.hexdigest(), folder)


def _clips(entry: Entry, found: Format) -> Iterator[dict[str, Any]]:
    """The clips of a record, or why there are none: all of them or none, as records are given."""
    try:
        if entry.error is not None:
            raise entry.error
        value = as_object(entry.value, entry.where)
        clips = [_clip_record(reading, entry) for reading in found.readings(value, None)]
        for clip in clips:
            json.dumps(clip)
    except (RecordError, ShapeError, TypeError) as error:  # TypeError: a value that is none of JSON's
        yield {"error": error.reason if isinstance(error, RecordError) else str(error)}
        return
    yield from ({"clip": clip} for clip in clips)


def _clip_record(reading: Any, entry: Entry) -> dict[str, Any]:
    if not isinstance(reading, ForeignClip):
        raise ShapeError("", "is a conversation among clips")
    if not isinstance(reading.audio, str):
        raise ShapeError("audio", "is no file; sound inside records is read from tar shards and parquet")
    facts = clip_facts(reading)
    facts["id"] = reading.id or os.path.basename(entry.where)
    facts["audio"] = os.path.join(entry.base_dir or os.getcwd(), reading.audio)
    for name in ("offset", "duration"):
        if vars(reading)[name] is not None:
            facts[name] = vars(reading)[name]
    return facts
