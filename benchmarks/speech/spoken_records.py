"""Recordings of a manifest that a speech benchmark takes, and what is said in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.conversation.types import AudioPart
from audiollm.data.manifest import Manifest
from audiollm.data.records import TEXT_KEYS


@dataclass(frozen=True)
class SpokenRecord:
    """A recording of a manifest.

    Attributes:
        id: the record's own, or its number in the manifest.
        where: its place, for messages.
        audio: the recording.
        text: what is said; None where the record does not tell.
    """

    id: str
    where: str
    audio: AudioPart
    text: str | None


def spoken_records(manifest: Manifest, split: str | None) -> Iterator[SpokenRecord]:
    """The records of a split, or all if it is None, read as they are asked for.

    Raises:
        RecordError: a record has no recording.
    """
    for index in range(len(manifest)):
        record, where = manifest[index], manifest.where(index)
        metadata = record if isinstance(record, Mapping) else {}
        if split is not None and metadata.get("split") != split:
            continue
        audio = clip_part(record, where, manifest.base_dir(index))
        text = next((metadata[key] for key in TEXT_KEYS if isinstance(metadata.get(key), str)), None)
        yield SpokenRecord(str(metadata.get("id", index)), where, audio, text)
