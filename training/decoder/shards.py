"""Shards of a decoder's training data: clips prepared once, kept in safetensors, read from there one by one.

Both trainers read the same shards. A run that is killed while preparing goes on behind the last complete shard.
"""
# Shapes: T codes, M mel frames, N samples (M times the hop length), S size of a speaker vector.

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, overload

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from audiollm.data.files.atomic import atomic_entries
from audiollm.data.manifest import Manifest
from audiollm.data.tokenizing.source import open_corpus
from audiollm.data.unread_keys import unread_keys, warn_of_unread_keys
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.loop.errors import DataError

from .clips import ClipFormat, PreparedClip, prepare_clips

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
SHARD_RECORDS = 64
OPEN_SHARDS = 256
_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class DecoderItem:
    """One clip of a decoder's training data."""

    id: str
    codes: Tensor  # [T] int64
    waveform: Tensor  # [N] float32, at the mel's sample rate
    mel: Tensor  # [num_mels, M] float32, log
    f0: Tensor | None = None  # [M] float32, Hz; 0 where unvoiced
    speaker: Tensor | None = None  # [S] float32
    text: str | None = None


@dataclass(frozen=True)
class Column:
    """Something computed of every prepared clip and stored beside it.

    Attributes:
        name: ``f0`` or ``speaker``.
        settings: everything that decides the values; others get files of their own.
        compute: the value, float32, of an item (whose own ``f0`` and ``speaker`` may be missing).
    """

    name: Literal["f0", "speaker"]
    settings: dict[str, Any]
    compute: Callable[[DecoderItem], Tensor]


@dataclass(frozen=True)
class _Entry:
    """Where a clip is, and what is known of it without reading it."""

    shard: int
    number: int  # within the shard
    id: str
    where: str
    num_codes: int
    num_frames: int
    text: str | None
    has_speaker: bool


class DecoderItems(Sequence[DecoderItem]):
    """Prepared clips; each read comes from the disk (or the system's cache of it), so memory stays flat.

    Args:
        folder: the prepared shards.
        entries: the clips.
        columns: file name prefix of each stored column.
        clip_format: what the clips were turned into.
        fingerprint: SHA-256 over the manifest and all settings that decide the clips.
    """

    def __init__(
        self,
        folder: Path,
        entries: Sequence[_Entry],
        columns: Mapping[Any, str],
        clip_format: ClipFormat,
        fingerprint: str,
    ) -> None:
        self.folder = folder
        self.clip_format = clip_format
        self.fingerprint = fingerprint
        self._entries = entries
        self._columns = columns
        self._opened = lru_cache(maxsize=OPEN_SHARDS)(self._open)

    def _open(self, name: str) -> Any:
        return safe_open(self.folder / name, framework="pt")

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> DecoderItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[DecoderItem]: ...
    def __getitem__(self, index: int | slice) -> DecoderItem | list[DecoderItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        entry = self._entries[index]
        return DecoderItem(
            id=entry.id,
            codes=self.codes(index),
            waveform=self.waveform(index),
            mel=self.mel(index),
            f0=self.f0(index) if "f0" in self._columns else None,
            speaker=self.speaker(index),
            text=entry.text,
        )

    def id(self, index: int) -> str:
        """The record's own id."""
        return self._entries[index].id

    def text(self, index: int) -> str | None:
        """What is said, if the record tells."""
        return self._entries[index].text

    def where(self, index: int) -> str:
        """File and line of the record, for messages."""
        return self._entries[index].where

    def num_codes(self, index: int) -> int:
        """T, without reading the clip."""
        return self._entries[index].num_codes

    def num_frames(self, index: int) -> int:
        """M, without reading the clip."""
        return self._entries[index].num_frames

    @property
    def seconds(self) -> float:
        """Duration of all clips together."""
        mel = self.clip_format.mel
        return sum(entry.num_frames for entry in self._entries) * mel.hop_length / mel.sample_rate

    def codes(self, index: int) -> Tensor:
        """int64 ``[T]``."""
        return self._tensor("clips", index, "codes")

    def mel(self, index: int) -> Tensor:
        """float32 ``[num_mels, M]``."""
        return self._tensor("clips", index, "mel")

    def waveform(self, index: int, start: int = 0, stop: int | None = None) -> Tensor:
        """float32 ``[N]``, or its samples from ``start`` to ``stop``, of which only those are read."""
        entry = self._entries[index]
        piece = self._opened(_shard_name("clips", entry.shard)).get_slice(f"{entry.number}.waveform")
        return cast(Tensor, piece[start : piece.get_shape()[0] if stop is None else stop])

    def f0(self, index: int) -> Tensor:
        """float32 ``[M]``, Hz, 0 where unvoiced.

        Raises:
            KeyError: if the clips were prepared without that column.
        """
        return self._tensor(self._columns["f0"], index, "f0")

    def speaker(self, index: int) -> Tensor | None:
        """float32 ``[S]``: the record's own, else of the column, else None."""
        if self._entries[index].has_speaker:
            return self._tensor("clips", index, "speaker")
        if "speaker" in self._columns:
            return self._tensor(self._columns["speaker"], index, "speaker")
        return None

    def _tensor(self, prefix: str, index: int, name: str) -> Tensor:
        entry = self._entries[index]
        return cast(Tensor, self._opened(_shard_name(prefix, entry.shard)).get_tensor(f"{entry.number}.{name}"))


def prepare_items(
    source: Any,
    clip_format: ClipFormat,
    cache_dir: str | os.PathLike[str],
    *,
    audio_tokenizer: AudioTokenizer | None = None,
    columns: Sequence[Column] = (),
    on_bad: Literal["error", "skip"] = "error",
    process_index: int = 0,
    num_processes: int = 1,
    wait_for_everyone: Callable[[], None] = lambda: None,
    progress: bool = False,
) -> DecoderItems:
    """Prepares a corpus for training, or finds it prepared already.

    Args:
        source: clip records with ``audio`` and, as ``audiollm tokenize`` writes them, ``codes``; a JSONL or parquet
            file or whatever else `open_corpus` takes.
        clip_format: what to turn the clips into.
        cache_dir: shards go to a folder in here that is named by a hash of everything that decides them.
        audio_tokenizer: encodes clips that come without codes.
        columns: more to compute of every clip. Adding one later leaves the clips as they are.
        on_bad: whether unusable clips stop the preparation or are left out with a warning.
        process_index: with ``num_processes``, which share of the shards this process prepares.
        num_processes: how many prepare together; all of them must call this.
        wait_for_everyone: a barrier between them.
        progress: show a progress bar.

    Returns:
        The clips, in the order of the records.

    Raises:
        DataError: listing the clips that cannot be used, each with file, line and reason (``on_bad="error"``), or that
            none can.
        RecordError: no such file.
    """
    manifest = open_corpus(source)
    if len(manifest) == 0:
        raise DataError(f"{manifest.name} holds no records")
    settings: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "manifest": manifest.fingerprint,
        "format": dataclasses.asdict(clip_format),
        "audio_tokenizer": None if audio_tokenizer is None else audio_tokenizer.fingerprint(),
    }
    fingerprint = _hash(settings)
    folder = Path(cache_dir) / fingerprint[:16]
    folder.mkdir(parents=True, exist_ok=True)
    num_shards = -(-len(manifest) // SHARD_RECORDS)
    mine = range(process_index, num_shards, num_processes)
    unread: Counter[str] = Counter()
    for shard in tqdm(mine, desc="prepare", unit="shard", disable=None if progress else True):
        if not (folder / _shard_name("clips", shard)).exists():
            _prepare_shard(folder, manifest, shard, clip_format, audio_tokenizer, settings["audio_tokenizer"], unread)
    warn_of_unread_keys(manifest.name, unread)  # of this process's share, when it is prepared
    wait_for_everyone()
    entries, problems = _read_entries(folder, num_shards)
    wait_for_everyone()
    _report_problems(folder, manifest, problems, on_bad, process_index)
    prefixes = {column.name: f"{column.name}-{_hash(column.settings)[:16]}" for column in columns}
    items = DecoderItems(folder, entries, {}, clip_format, fingerprint)
    for column in columns:
        for shard in tqdm(mine, desc=column.name, unit="shard", disable=None if progress else True):
            _prepare_column(items, entries, shard, column, prefixes[column.name])
    wait_for_everyone()
    return DecoderItems(folder, entries, prefixes, clip_format, fingerprint)


def _prepare_shard(
    folder: Path,
    manifest: Manifest,
    shard: int,
    clip_format: ClipFormat,
    audio_tokenizer: AudioTokenizer | None,
    fingerprint: str | None,
    unread: Counter[str],
) -> None:
    indices = range(shard * SHARD_RECORDS, min((shard + 1) * SHARD_RECORDS, len(manifest)))
    tensors: dict[str, Tensor] = {}
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    clips = prepare_clips(manifest, indices, clip_format, audio_tokenizer, fingerprint)
    for index, clip in zip(indices, clips, strict=True):
        if not isinstance(clip, PreparedClip):
            source = manifest.where(index)
            problems.append(str(clip) if str(clip).startswith(source) else f"{source}: {clip}")
            continue
        unread.update(unread_keys(manifest[index]))
        number = len(entries)
        tensors |= {f"{number}.codes": clip.codes, f"{number}.waveform": clip.waveform, f"{number}.mel": clip.mel}
        if clip.speaker is not None:
            tensors[f"{number}.speaker"] = clip.speaker
        entry = _Entry(
            shard, number, clip.id, clip.where, len(clip.codes), clip.mel.shape[1], clip.text, clip.speaker is not None
        )
        entries.append(dataclasses.asdict(entry))
    _save(folder / _shard_name("clips", shard), tensors, {"entries": entries, "problems": problems})


def _prepare_column(items: DecoderItems, entries: Sequence[_Entry], shard: int, column: Column, prefix: str) -> None:
    path = items.folder / _shard_name(prefix, shard)
    if path.exists():
        return
    tensors = {
        f"{entry.number}.{column.name}": column.compute(items[index]).float().contiguous()
        for index, entry in enumerate(entries)
        if entry.shard == shard
    }
    _save(path, tensors, {})


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    with atomic_entries(path.parent) as staging:
        save_file(tensors, staging / path.name, metadata={name: json.dumps(value) for name, value in metadata.items()})


def _read_entries(folder: Path, num_shards: int) -> tuple[list[_Entry], dict[int, list[str]]]:
    """Returns the clips of all shards, and what is wrong with others, by shard."""
    entries: list[_Entry] = []
    problems: dict[int, list[str]] = {}
    for shard in range(num_shards):
        with safe_open(folder / _shard_name("clips", shard), framework="pt") as file:
            metadata = file.metadata()
        entries += [_Entry(**values) for values in json.loads(metadata["entries"])]
        if found := json.loads(metadata["problems"]):
            problems[shard] = found
    return entries, problems


def _report_problems(
    folder: Path, manifest: Manifest, problems: dict[int, list[str]], on_bad: str, process_index: int
) -> None:
    everything = [line for lines in problems.values() for line in lines]
    if not everything:
        return
    summary = f"{len(everything)} of {len(manifest)} records cannot be trained on"
    listed = [f"  {line}" for line in everything[:_LISTED_PROBLEMS]]
    if len(everything) > _LISTED_PROBLEMS:
        listed.append(f"  … and {len(everything) - _LISTED_PROBLEMS} more")
    if on_bad == "skip" and len(everything) < len(manifest):
        logger.warning("%s and are left out:\n%s", summary, "\n".join(listed))
        return
    if process_index == 0:
        for shard in problems:  # once repaired, they are to be read again
            (folder / _shard_name("clips", shard)).unlink(missing_ok=True)
    raise DataError(f"{summary}:\n" + "\n".join([*listed, "repair or remove them, or set on_bad: skip"]))


def _shard_name(prefix: str, shard: int) -> str:
    return f"{prefix}_{shard:05d}.safetensors"


def _hash(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
