"""WebDataset's tar shards as clip records: members of one name up to its first dot are one sample.

A sample is its sound (``.wav``, ``.flac``, …), the fields of its ``.json`` and the texts of its other members, such as
``.txt``. Samples are read where they lie in the file; a shard costs 8 bytes per sample once it is opened.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tarfile
from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from audiollm.data.foreign.shards import AUDIO_ENDINGS, MAX_MEMBER_BYTES
from audiollm.data.manifest import Joined, Manifest, RecordError, parse_json_line

TAR_SUFFIX = ".tar"
FINGERPRINT_BYTES = 1 << 16  # hashed at either end of a shard; its middle may be hours of sound
_TEXT_KEYS = {"txt": "text", "cls": "label"}  # what WebDataset's usual names are here
_READ_ERRORS = (tarfile.TarError, OSError, EOFError)


class TarShard(Manifest):
    """The samples of a tar file, ``{"id": "<title>/<key>", "audio": {"bytes": …}, …}``; they are found when it is used.

    Where the file is damaged, the sample in front of the damage is an error that says so: it may have lost members, and
    what was behind is lost.

    Args:
        path: the file.
        title: what ids of its samples begin with; its name if None.
    """

    def __init__(self, path: str, title: str | None = None) -> None:
        self.name = path
        self.title = title or os.path.basename(path)
        self._path = os.path.abspath(path)

    @cached_property
    def _index(self) -> tuple[array[int], str]:
        """Where each sample begins, and what is wrong with the file; "" if nothing."""
        starts, key = array("q"), None
        try:
            with tarfile.open(self._path, "r:") as file:
                for member in file:
                    # The file keeps all members that it met; a shard of a million samples has gigabytes of them.
                    file.members = []  # type: ignore[attr-defined]
                    if member.isfile() and sample_key(member.name) != key:
                        key = sample_key(member.name)
                        starts.append(member.offset)
                problem = _missing_end(self._path, file.offset)  # some damage looks like the end to `tarfile`
        except _READ_ERRORS as error:
            problem = str(error) or type(error).__name__
        return starts, problem

    def __len__(self) -> int:
        starts, problem = self._index
        return len(starts) or bool(problem)

    def where(self, index: int) -> str:
        try:
            with open(self._path, "rb") as raw:
                raw.seek(self._index[0][index])
                with tarfile.open(fileobj=raw, mode="r:") as file:
                    member = next(member for member in file if member.isfile())
            return f"{self.name}: {sample_key(member.name)}"
        except (*_READ_ERRORS, IndexError, StopIteration):
            return self.name  # its record says what is wrong

    def base_dir(self, index: int) -> str | None:
        return os.path.dirname(self._path)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over name, size and both ends: enough to notice another file, without reading all of it."""
        try:
            with open(self._path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest = hashlib.sha256(json.dumps([os.path.basename(self._path), size]).encode())
                for position in (0, max(0, size - FINGERPRINT_BYTES)):
                    file.seek(position)
                    digest.update(file.read(FINGERPRINT_BYTES))
        except OSError as error:
            raise RecordError(self.name, f"cannot be read: {error.strerror}") from error
        return digest.hexdigest()

    def _record(self, index: int) -> dict[str, Any]:
        starts, problem = self._index
        where = self.where(index)
        if problem and index + 1 >= len(starts):
            raise RecordError(where, f"the file is damaged here: {problem}; the rest of it is lost: make it again")
        try:
            return self._sample(starts[index], where)
        except _READ_ERRORS as error:
            raise RecordError(where, f"is damaged: {error}") from error

    def _sample(self, start: int, where: str) -> dict[str, Any]:
        with open(self._path, "rb") as raw:
            raw.seek(start)
            with tarfile.open(fileobj=raw, mode="r:") as file:
                members: dict[str, bytes] = {}
                key = None
                for member in file:
                    if not member.isfile():
                        continue
                    if key is not None and sample_key(member.name) != key:
                        break
                    key = sample_key(member.name)
                    ending = os.path.basename(member.name)[len(os.path.basename(key)) + 1 :].lower()
                    if ending in members:
                        raise RecordError(where, f"holds {member.name} twice")
                    members[ending] = _content(file, member, where)
        assert key is not None  # the index points at a file
        return sample_record(members, f"{self.title}/{key}", where)


class TarShards(Joined):
    """Several tar files, one after the other; none is opened before its records are asked for.

    Args:
        paths: the files.
        name: what messages call the whole.
    """

    parts: Sequence[TarShard]

    def __init__(self, paths: Sequence[str], name: str) -> None:
        super().__init__([TarShard(path, title) for path, title in zip(paths, _titles(paths), strict=True)], name)


def _titles(paths: Sequence[str]) -> list[str]:
    """The names of files, with as much of their folders as it takes to tell them apart.

    Raises:
        ValueError: a file is there twice.
    """
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    real = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, real, strict=True):
        if real.count(place) > 1:
            raise ValueError(f"{path} is there twice: name each tar file once")
    folder = os.path.commonpath(real)
    return [os.path.relpath(path, folder) for path in real]


def sample_key(name: str) -> str:
    """A member's name up to the first dot of its last part, as WebDataset has it."""
    folder, _, base = name.rpartition("/")
    return (folder + "/" if folder else "") + base.partition(".")[0]


def sample_record(members: dict[str, bytes], key: str, where: str) -> dict[str, Any]:
    """A clip record of a sample's members.

    Args:
        members: what each holds, by its ending, in lower letters.
        key: the sample's id, unless its JSON brings one.
        where: its place, for messages.

    Raises:
        RecordError: it has no sound, or several; its texts are no UTF-8, or its JSON is no object.
    """
    sounds = [ending for ending in members if ending.rpartition(".")[2] in AUDIO_ENDINGS]
    if len(sounds) != 1:
        found = " and ".join(sounds) or f"no sound, but {', '.join(members)}"
        raise RecordError(where, f"{key} holds {found}; a sample is what is called the same up to the first dot")
    fields: dict[str, Any] = {}
    for ending, content in members.items():
        if ending == "json":
            value = parse_json_line(content, where)
            if not isinstance(value, dict):
                raise RecordError(where, f"{key}.json must hold an object, not a {type(value).__name__}")
            if "messages" in value or "conversations" in value:
                raise RecordError(where, f"{key}.json holds a conversation; give conversations as JSON lines")
            fields |= value
    for ending, content in members.items():
        if ending not in ("json", *sounds):
            try:
                fields.setdefault(_TEXT_KEYS.get(ending, ending), content.decode())
            except UnicodeDecodeError as error:
                raise RecordError(where, f"{key}.{ending} is neither sound nor UTF-8 text; leave it out") from error
    return {"id": key, **fields, "audio": {"bytes": members[sounds[0]]}}


def tar_files(source: Any) -> list[str] | None:
    """The tar files that a source consists of: one, a list, a glob pattern, a folder; None if it is something else."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if os.path.isdir(path):
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
            return [os.path.join(path, name) for name in names if name.endswith(TAR_SUFFIX)] or None
        if os.path.isfile(path):
            return [path] if path.endswith(TAR_SUFFIX) else None
        files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
        return files if files and all(file.endswith(TAR_SUFFIX) for file in files) else None
    if isinstance(source, Sequence) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        paths = [os.fspath(item) for item in source]
        return paths if all(path.endswith(TAR_SUFFIX) for path in paths) else None
    return None


def _content(file: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise RecordError(where, f"{member.name} has more than {MAX_MEMBER_BYTES} bytes; no clip is as long")
    extracted = file.extractfile(member)
    content = b"" if extracted is None else extracted.read()
    if len(content) < member.size:
        raise RecordError(where, f"{member.name} is cut off: {len(content)} of {member.size} bytes are there")
    return content


def _missing_end(path: str, position: int) -> str:
    """What is wrong where members end: there should be blocks of zeros, and nothing behind them."""
    num_zeros = 0
    with open(path, "rb") as file:
        file.seek(position)
        while block := file.read(1 << 20):
            if block.strip(b"\0"):
                return "what follows is no header of a tar file"
            num_zeros += len(block)
    return "" if num_zeros >= tarfile.BLOCKSIZE else "it ends without an end mark, as half-written files do"
