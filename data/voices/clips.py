"""Clips of speech with a transcript, as manifests hold them: what is needed to speak them, or why that cannot be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiollm.data.conversation.audio_parts import CLIP_AUDIO_KEYS, clip_part
from audiollm.data.conversation.parsing import is_conversation
from audiollm.data.manifest import RecordError
from audiollm.data.records import TEXT_KEYS

from .attributes import FIELDS, VocalAttributes
from .levels import characters_per_second

# Where labels may stand, the weakest first: the record itself says it best.
ATTRIBUTE_KEYS = ("attributes", "paralinguistics", "vocal_attributes")
KEPT_KEYS = ("language", "speaker", "split", "group", "licence", "attribution")


class UnusableClipError(ValueError):
    """A clip that cannot be spoken; the message is the reason, the same for all clips that share it."""


@dataclass(frozen=True)
class SpokenClip:
    """A clip that can be spoken.

    Attributes:
        id: the record's, or its place.
        text: what is said, with single blanks.
        audio: an audio part of codes or of an absolute path.
        seconds: how long it takes; None if the record does not say.
        attributes: the voice, as labelled.
        unknown_values: labels outside the closed sets.
        f0_median_hz: median fundamental frequency, if the record holds it.
        kept: other fields worth keeping.
    """

    id: str
    text: str
    audio: dict[str, Any]
    seconds: float | None
    attributes: VocalAttributes
    unknown_values: dict[str, str]
    f0_median_hz: float | None
    kept: dict[str, Any]

    @property
    def speed(self) -> float | None:
        """Characters per second; None without a duration."""
        return None if self.seconds is None else characters_per_second(self.text, self.seconds)

    @property
    def language(self) -> str:
        """The language's name; empty if the record does not say."""
        return str(self.kept.get("language", ""))


def read_spoken_clip(record: Any, where: str, base_dir: str | None) -> SpokenClip:
    """Reads a clip ``{"text", "codes" or "audio", …}``, as ``audiollm tokenize`` and the corpora write them.

    The text may also be called ``transcription`` or ``linguistic_content``. Vocal attributes stand in the record itself
    or under ``vocal_attributes``, ``paralinguistics`` or ``attributes``; text and attributes also under ``sap``.

    Args:
        record: the record.
        where: its file and line.
        base_dir: folder that a relative path starts from.

    Raises:
        UnusableClipError: if there is no text, or no audio that a conversation could hold.
    """
    if not isinstance(record, Mapping):
        raise UnusableClipError("not an object")
    if is_conversation(record):
        raise UnusableClipError("a conversation already")
    text = words_of(record)
    if not isinstance(text, str) or not any(character.isalnum() for character in text):
        raise UnusableClipError("no text")
    attributes, unknown_values = VocalAttributes.from_record(labelled_attributes(record))
    name = record.get("id")
    return SpokenClip(
        id=where if name is None else str(name),
        text=" ".join(text.split()),
        audio=_audio(record, where, base_dir),
        seconds=_positive(record.get("duration_seconds")),
        attributes=attributes,
        unknown_values=unknown_values,
        f0_median_hz=_positive(record.get("f0_median_hz")),
        kept={key: record[key] for key in KEPT_KEYS if record.get(key) is not None},
    )


def _holders(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where words and labels of a record may stand, the weakest first."""
    sap = record.get("sap")
    return [sap, record] if isinstance(sap, Mapping) else [record]


def words_of(record: Mapping[str, Any]) -> Any:
    """The words spoken, as the record has them; None if it says none."""
    found = (holder.get(key) for holder in _holders(record)[::-1] for key in TEXT_KEYS)
    return next((words for words in found if words is not None), None)


def labelled_attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the labels of a record say of the voice, the strongest last; null says nothing."""
    labels: dict[str, Any] = {}
    for holder in _holders(record):
        labelled = [holder.get(key) for key in ATTRIBUTE_KEYS]
        labelled.append({name: holder.get(name) for name in FIELDS})
        for values in labelled:
            if isinstance(values, Mapping):
                labels |= {name: value for name, value in values.items() if name in FIELDS and value is not None}
    return labels


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < float("inf") else None


def _audio(record: Mapping[str, Any], where: str, base_dir: str | None) -> dict[str, Any]:
    """The recording as an audio part: codes if there are any, else the file."""
    codes = record.get("codes")
    if codes is not None:
        is_flat = isinstance(codes, list) and all(type(code) is int and code >= 0 for code in codes)
        if not codes or not is_flat:
            raise UnusableClipError("codes are no list of codes of one codebook")
        return {"type": "audio", "codes": codes}
    if all(record.get(key) is None for key in CLIP_AUDIO_KEYS):
        raise UnusableClipError("no audio")
    try:
        part = clip_part(record, where, base_dir)
    except RecordError as error:
        raise UnusableClipError("audio is neither a file nor codes") from error
    if part.path is None:
        raise UnusableClipError("audio lies inside the record: run audiollm tokenize first")
    if not os.path.isfile(part.path):
        raise UnusableClipError("the audio file is missing")
    return {"type": "audio", "path": os.path.abspath(part.path), **part.cut}
