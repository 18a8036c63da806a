"""Shards of WeNet: tar files of ``key.wav`` and ``key.txt`` side by side, and lists of such files."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from audiollm.data.manifest import RecordError

from .base import Entry, Reading, ShapeError
from .clips import clip_of, is_wenet_raw, read_wenet_raw
from .files import entries_of, first_line, folder_of, opened

AUDIO_ENDINGS = ("wav", "flac", "mp3", "m4a", "ogg", "opus", "wma")
MAX_MEMBER_BYTES = 1 << 31  # hours of sound; more is no utterance


def is_wenet(record: Mapping[str, Any]) -> bool:
    return is_wenet_raw(record) or record.get("in_shard") is True


def is_wenet_shards(path: str) -> bool:
    """Whether a path is a tar file, or a list of tar files."""
    if not os.path.isfile(path):
        return False
    return tarfile.is_tarfile(path) or first_line(path).strip().endswith(".tar")


def wenet_entries(path: str, base_dir: str | None) -> Iterator[Entry]:
    """The records of a raw list, a tar file, or a list of tar files, one path a line.

    Raises:
        RecordError: a tar file is missing or damaged: what follows in it is lost.
    """
    if not is_wenet_shards(path):
        return entries_of(path, base_dir)
    if tarfile.is_tarfile(path):
        return _shard_entries(path)
    return _listed_entries(path, base_dir or folder_of(path))


def read_wenet(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A line of a raw list, or an utterance out of a shard, whose sound comes as bytes.

    Raises:
        ShapeError: an utterance without sound.
    """
    if not record.get("in_shard"):
        return read_wenet_raw(record, text_key)
    endings = [ending for ending in AUDIO_ENDINGS if ending in record]
    if len(endings) != 1:
        found = " and ".join(endings) or "no sound"
        raise ShapeError("", f"holds {found}; an utterance has one of {', '.join(AUDIO_ENDINGS)} beside its txt")
    done = {"key", "in_shard", endings[0]}
    audio = {"bytes": record[endings[0]]}
    return [clip_of(record, audio, text_keys=("txt",), text_key=text_key, done=done, id=record["key"])]


def _listed_entries(path: str, base_dir: str) -> Iterator[Entry]:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            name = os.fsdecode(line.strip())
            if not name:
                continue
            shard = os.path.join(base_dir, name)
            if not os.path.isfile(shard):
                raise RecordError(f"{path}:{number}", f"{name}: no such file; relative paths start from {base_dir}")
            yield from _shard_entries(shard)


def _shard_entries(path: str) -> Iterator[Entry]:
    """The utterances of a tar file: members in a row whose names are the same up to the ending."""
    key, members = "", dict[str, Any]()
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                if not member.isfile():
                    continue
                name, _, ending = member.name.rpartition(".")
                if members and name != key:
                    yield _utterance(path, key, members)
                    members = {}
                key = name
                members[ending.lower()] = _content(shard, member)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RecordError(path, f"is damaged: {error}; make it again") from error
    if members:
        yield _utterance(path, key, members)


def _content(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    file = shard.extractfile(member) if member.size <= MAX_MEMBER_BYTES else None
    return None if file is None else file.read()


def _utterance(path: str, key: str, members: dict[str, Any]) -> Entry:
    where = f"{path}: {key}"
    value: dict[str, Any] = {"key": key, "in_shard": True}
    for ending, content in members.items():
        if content is None:
            return Entry(where, None, error=RecordError(where, f"has {ending} of more than {MAX_MEMBER_BYTES} bytes"))
        try:
            value[ending] = content if ending in AUDIO_ENDINGS else content.decode()
        except UnicodeDecodeError as error:
            return Entry(where, None, error=RecordError(where, f"{ending} is not UTF-8 text ({error.reason})"))
    return Entry(where, None, value)
