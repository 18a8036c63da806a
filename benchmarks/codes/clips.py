"""Clips with a class, from manifests of records or from a copy of ESC-50, for clustering and probing."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from audiollm.data.audio.channels import Mono
from audiollm.data.conversation.audio_parts import parse_audio_part
from audiollm.data.conversation.types import AudioPart
from audiollm.data.manifest import Manifest, open_manifest

LABEL_KEY = "label"  # of a class, in records
ESC50_TABLE = Path("meta") / "esc50.csv"


@dataclass(frozen=True)
class LabelledClip:
    """A recording and its class."""

    id: str
    label: str
    audio: AudioPart
    split: str | None = None
    fold: str | None = None
    """Part of the data that is held out together, where the data set has such parts (ESC-50: 1 to 5)."""
    sound_type: str | None = None
    """``speech``, ``sound``, ``music`` or ``mix``, where the record says so."""

    def load(self, sample_rate: int, mono: Mono = "first") -> Tensor:
        """Decodes the first channel, or the mean of all, float32 ``[N]`` at ``sample_rate``.

        Raises:
            AudioError: if the file is broken.
        """
        return self.audio.load(sample_rate, mono)[0]


def read_labelled_clips(
    source: str | os.PathLike[str] | Manifest,
    *,
    label_key: str = LABEL_KEY,
    splits: Sequence[str] | None = None,
    sound_type: str | None = None,
    min_clips_per_class: int = 1,
    esc10: bool = False,
) -> list[LabelledClip]:
    """Reads the clips that have a class.

    Args:
        source: records with ``audio`` and a class (anything `open_manifest` reads), or a folder of ESC-50, which
            has ``meta/esc50.csv``.
        label_key: key of the class in the records; records without it are left out.
        splits: keep clips of these ``split`` values; None for all.
        sound_type: keep clips of this ``sound_type``; None for all.
        min_clips_per_class: leave out classes with fewer clips than this.
        esc10: of ESC-50, only the ten classes of ESC-10.

    Raises:
        ValueError: if nothing is left, ``esc10`` is asked of something else, or a record's audio is malformed (naming
            the line).
    """
    if not isinstance(source, Manifest) and (Path(source) / ESC50_TABLE).is_file():
        if label_key != LABEL_KEY:
            raise ValueError(f"label_key={label_key}: {source} is ESC-50, whose classes are categories; leave it out")
        clips = read_esc50(Path(source), esc10=esc10)
    elif esc10:
        raise ValueError(f"{source} is no folder of ESC-50, which has {ESC50_TABLE}; leave esc10 out")
    else:
        clips = _read_records(open_manifest(source), label_key)
    clips = [clip for clip in clips if splits is None or clip.split in splits]
    clips = [clip for clip in clips if sound_type is None or clip.sound_type == sound_type]
    counts = Counter(clip.label for clip in clips)
    clips = [clip for clip in clips if counts[clip.label] >= min_clips_per_class]
    if not clips:
        raise ValueError(
            f"{source} has no clips with {label_key!r}, splits {splits or 'any'}, sound_type {sound_type or 'any'} and "
            f"at least {min_clips_per_class} to a class"
        )
    return clips


def read_esc50(folder: Path, *, esc10: bool = False) -> list[LabelledClip]:
    """Reads ESC-50 (Piczak, 2015): 2,000 clips of 5 s, 50 classes, five folds; or the 400 clips of ESC-10 in it.

    Args:
        folder: a copy of the data set, with ``meta/esc50.csv`` and ``audio/``.
        esc10: only the ten classes of ESC-10.

    Raises:
        OSError: if there is no table.
    """
    with (folder / ESC50_TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        LabelledClip(
            id=row["filename"],
            label=row["category"],
            audio=AudioPart(path=str(folder / "audio" / row["filename"])),
            fold=row["fold"],
            sound_type="sound",
        )
        for row in rows
        if not esc10 or row["esc10"].lower() == "true"
    ]


def _read_records(manifest: Manifest, label_key: str) -> list[LabelledClip]:
    clips = []
    for index in range(len(manifest)):
        record = manifest[index]
        label = record.get(label_key) if isinstance(record, dict) else None
        if label is None:
            continue
        where = manifest.where(index)
        audio = parse_audio_part(record.get("audio"), where=where, base_dir=manifest.base_dir(index))
        identifier = record.get("id")
        clips.append(
            LabelledClip(
                id=where if identifier is None else str(identifier),
                label=str(label),
                audio=audio,
                split=record.get("split"),
                fold=_text_or_none(record.get("fold")),
                sound_type=record.get("sound_type"),
            )
        )
    return clips


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
