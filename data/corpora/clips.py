"""Manifests of corpora: `Clip`, the line of one recording, with its checks, splits, reading and writing.

A corpus is a folder with audio files and ``manifest.jsonl``. Each line is a JSON object with the fields of `Clip`;
``audio`` is relative to the folder, absent metadata are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from audiollm.data.files.json_lines import read_numbered_lines, write_json_lines
from audiollm.data.records import SOUND_TYPES, SPLITS, Split

MANIFEST_NAME = "manifest.jsonl"
TEST_PERCENT = 10
DEV_PERCENT = 10
STRATIFIED_TEST_PERCENT = 20


class CorpusError(ValueError):
    """A corpus that cannot be built or read; the message says which part and what to do."""


@dataclass(frozen=True, kw_only=True)
class ClipMetadata:
    """What is known of a recording, wherever its samples are."""

    id: str
    """Unique in its corpus; also the path of the audio file without its suffix."""
    sound_type: str
    """``speech`` (has `text`), ``sound`` (has `label`) or ``music``."""
    group: str
    """Clips of one group (one prompt in all languages, one original recording, one track) are never in two splits."""
    duration_seconds: float
    licence: str
    """SPDX identifier."""
    attribution: str
    """Who made the recording, to be named wherever it is passed on."""
    source: str
    """Package, version and file that it was taken from."""
    text: str | None = None
    """Transcript as the source gives it, in the language spoken."""
    language: str | None = None
    """ISO 639-1 code."""
    translation: str | None = None
    """The transcript in English, as the source gives it."""
    speaker: str | None = None
    """Name of the voice or role, unique over the corpora."""
    label: str | None = None
    """Class of the sound event or, for music, its mood."""
    caption: str | None = None
    """The source's own words for what is heard."""
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    """Further metadata, such as bpm, key and style of music."""

    def __post_init__(self) -> None:
        if self.sound_type not in SOUND_TYPES:
            raise CorpusError(f"{self.id}: sound_type is {self.sound_type!r}; use one of {', '.join(SOUND_TYPES)}")
        if (
            PurePosixPath(self.id).is_absolute()
            or not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", self.id)
            or ".." in self.id
        ):
            raise CorpusError(f"id {self.id!r} cannot name a file; use letters, digits, '.', '+', '-', '_' and '/'")
        if not (isinstance(self.duration_seconds, int | float) and math.isfinite(self.duration_seconds)):
            raise CorpusError(f"{self.id}: duration_seconds is {self.duration_seconds!r}; give seconds as a number")
        if self.duration_seconds <= 0:
            raise CorpusError(f"{self.id}: duration_seconds is {self.duration_seconds}; a clip has at least one sample")
        for name in ("group", "licence", "attribution", "source"):
            if not getattr(self, name):
                raise CorpusError(f"{self.id}: {name} is empty; every clip says where it comes from")
        if self.sound_type == "speech" and not (self.text and self.language):
            raise CorpusError(f"{self.id}: speech needs text and language")
        if self.sound_type == "sound" and not self.label:
            raise CorpusError(f"{self.id}: a sound event needs a label")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording of a source package, decoded when asked for."""

    metadata: ClipMetadata
    load: Callable[[], Tensor]
    """Returns the waveform: float32 ``[N]`` in [-1, 1] at 16 kHz."""
    stratum: str | None = None
    """Where set, splits are drawn per stratum (a small class or style) instead of by hash alone."""


@dataclass(frozen=True, kw_only=True)
class Clip(ClipMetadata):
    """A recording of a built corpus."""

    split: Split
    audio: Path
    """Audio file, mono, 16 kHz; absolute once loaded, relative to the manifest in the file."""
    sha256: str
    """Of the audio file, 64 hex digits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in SPLITS:
            raise CorpusError(f"{self.id}: split is {self.split!r}; use one of {', '.join(SPLITS)}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise CorpusError(f"{self.id}: sha256 is {self.sha256!r}; give 64 lower-case hex digits")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hash_split(group: str) -> Split:
    """The split of a group by the hash of its name: the same on every machine, whatever else a corpus holds.

    Args:
        group: name of the group.

    Returns:
        ``test`` for one group in ten, ``dev`` for one in ten, else ``train``.
    """
    # 32 bits of a hash, not a generator: the split of a group must not change when others come or the order changes.
    bucket = int(_hash(group)[:8], 16) % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "dev" if bucket < TEST_PERCENT + DEV_PERCENT else "train"


def stratified_splits(groups: Mapping[str, Sequence[str]]) -> dict[str, Split]:
    """Splits for small classes, where hashing alone would leave some without a test clip.

    Whole groups are taken in the order of their hash: test gets about a fifth of the clips of every stratum that has
    two groups or more, dev a tenth of those with five or more; train keeps at least one group of each.

    Args:
        groups: stratum → the group of each of its clips (a group repeats once per clip). A group that occurs in
            several strata keeps the split of the first one in sorted order.

    Returns:
        Group → split.
    """
    splits: dict[str, Split] = {}
    for stratum in sorted(groups):
        sizes = Counter(groups[stratum])
        num_clips = sum(sizes.values())
        dev_target = num_clips * DEV_PERCENT / 100 if len(sizes) >= 5 else 0
        counts = Counter({split: sum(sizes[name] for name in sizes if splits.get(name) == split) for split in SPLITS})
        # A group that is most of its class belongs in train.
        free = sorted(
            (name for name in sizes if name not in splits and sizes[name] <= max(1, num_clips / 2)), key=_hash
        )
        if len(free) == len(sizes):
            splits[free.pop()] = "train"
        for group in free:
            split: Split = "train"
            if counts["test"] < num_clips * STRATIFIED_TEST_PERCENT / 100:
                split = "test"
            elif counts["dev"] < dev_target:
                split = "dev"
            splits[group] = split
            counts[split] += sizes[group]
        for group in sizes:
            splits.setdefault(group, "train")
    return splits


def assign_splits(recordings: Sequence[Recording]) -> dict[str, Split]:
    """Group → split for the recordings of one corpus: by stratum where they have one, else by hash.

    Args:
        recordings: all recordings of the corpus.

    Returns:
        The split of every group.
    """
    strata: dict[str, list[str]] = {}
    for recording in recordings:
        if recording.stratum is not None:
            strata.setdefault(recording.stratum, []).append(recording.metadata.group)
    splits = stratified_splits(strata)
    for recording in recordings:
        splits.setdefault(recording.metadata.group, hash_split(recording.metadata.group))
    return splits


def connected_groups(keys: Sequence[Iterable[str]]) -> list[str]:
    """Names one group for all items that are linked by shared keys, directly or through others.

    Args:
        keys: the keys of each item; items that share a key belong together.

    Returns:
        For each item, the smallest key of its whole group.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    first_keys = []
    for item in keys:
        first, *others = sorted(item)
        first_keys.append(first)
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [root(first) for first in first_keys]


def save_manifest(clips: Iterable[Clip], path: Path) -> None:
    """Writes a manifest, sorted by id, whole or not at all.

    Args:
        clips: the clips; their audio lies in or below the folder of ``path``.
        path: the file to write.

    Raises:
        CorpusError: if an id occurs twice, a group is in two splits, or an audio file is outside the folder.
    """
    ordered = sorted(clips, key=lambda clip: clip.id)
    check_clips(ordered, path)
    write_json_lines(path, (_to_record(clip, path.parent) for clip in ordered))


def load_manifest(path: Path) -> list[Clip]:
    """Reads and checks a manifest.

    Args:
        path: ``manifest.jsonl``, or the folder it is in.

    Returns:
        The clips, with absolute audio paths. The audio files themselves are not opened.

    Raises:
        CorpusError: naming the line for text that is no JSON object, unknown or missing fields and bad values, and for
            doubled ids or groups in two splits.
        FileNotFoundError: if there is no manifest.
    """
    path = path / MANIFEST_NAME if path.is_dir() else path
    clips = []
    folder = path.parent.resolve()
    try:
        for number, record in read_numbered_lines(path):
            try:
                clips.append(_from_record(record, folder))
            except (CorpusError, TypeError) as error:
                raise CorpusError(f"{path}:{number}: {error}") from error
    except CorpusError:
        raise
    except ValueError as error:  # no JSON
        raise CorpusError(str(error)) from error
    check_clips(clips, path)
    return clips


def check_clips(clips: Sequence[Clip], path: Path) -> None:
    """Raises `CorpusError` if an id or an audio file occurs twice or a group is in two splits."""
    seen: set[str] = set()
    splits: dict[str, str] = {}
    for clip in clips:
        if clip.id in seen:
            raise CorpusError(f"{path}: the id {clip.id!r} occurs twice")
        seen.add(clip.id)
        if splits.setdefault(clip.group, clip.split) != clip.split:
            raise CorpusError(f"{path}: group {clip.group!r} is in {splits[clip.group]} and in {clip.split}")


def _to_record(clip: Clip, folder: Path) -> dict[str, Any]:
    record = {name: value for name, value in dataclasses.asdict(clip).items() if value is not None and value != {}}
    audio = clip.audio.resolve()
    if not audio.is_relative_to(folder.resolve()):
        raise CorpusError(f"{clip.id}: {audio} is outside the corpus folder {folder}")
    record["audio"] = audio.relative_to(folder.resolve()).as_posix()
    return record


_STRING_FIELDS = {item.name for item in dataclasses.fields(Clip)} - {"duration_seconds", "attributes"}


def _from_record(record: dict[str, Any], folder: Path) -> Clip:
    for name, value in record.items():
        if name in _STRING_FIELDS and not isinstance(value, str):
            raise CorpusError(f"{name} is {value!r}; give a string")
    if not isinstance(record.get("attributes", {}), dict):
        raise CorpusError(f"attributes is {record['attributes']!r}; give an object")
    required = {item.name for item in dataclasses.fields(Clip) if _is_required(item)}
    missing = sorted(required - record.keys())
    unknown = sorted(record.keys() - {item.name for item in dataclasses.fields(Clip)})
    if missing or unknown:
        parts = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unknown", unknown)) if names]
        raise CorpusError(f"fields {'; '.join(parts)}")
    relative = PurePosixPath(record["audio"])
    if relative.is_absolute() or ".." in relative.parts:
        raise CorpusError(f"audio is {record['audio']!r}; give a path below the manifest's folder")
    return Clip(**{**record, "audio": folder / relative})


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
