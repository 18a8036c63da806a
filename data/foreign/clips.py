"""Clips that are records of their own: NeMo's manifests, WeNet's raw lists, tables of Common Voice, audio columns."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from audiollm.data.records import TEXT_KEYS
from audiollm.data.unread_keys import CLIP_KEYS

from .base import Entry, ForeignClip, Reading, ShapeError, filled, refuse_other_uses
from .files import entries_of, folder_of

SENTENCE_KEYS = (*TEXT_KEYS, "sentence")  # where the words may stand in tables of the Hub
LANGUAGE_KEYS = ("language", "lang", "locale", "source_lang")
SPEAKER_KEYS = ("speaker", "speaker_id", "client_id", "spk")
QUESTION_KEYS = ("question", "context")
FILE_KEYS = ("file_name", "audio_file_name")  # of an audiofolder's metadata
# Facts of a manifest about its files and about how its project trains; nothing of them is left to say here.
_NEMO_DONE = {"taskname", "pnc", "target_lang", "decodercontext", "itn", "timestamp", "diarize"}
_VOTES = {"sentence_id", "sentence_domain", "up_votes", "down_votes", "segment"}


def first_of(record: Mapping[str, Any], keys: Collection[str]) -> str | None:
    """The first of the keys that a record has."""
    return next((key for key in keys if record.get(key) is not None), None)


def clip_of(
    record: Mapping[str, Any],
    audio: Any,
    *,
    text_keys: Collection[str],
    text_key: str | None,
    done: Collection[str],
    **facts: Any,
) -> ForeignClip:
    """A clip out of a flat record.

    Args:
        record: without keys of no value.
        audio: the recording.
        text_keys: where the words may stand, the first that is there counts.
        text_key: where the user says that they stand.
        done: other keys that have been dealt with, or say nothing here.
        facts: of the clip, as its attributes.

    Raises:
        ShapeError: the record is of pictures or preferences, or has no ``text_key``.
    """
    refuse_other_uses(record, is_chat=False)
    if text_key is not None and text_key not in record:
        raise ShapeError(text_key, f"missing; the record has {', '.join(map(str, list(record)[:12]))}")
    words = text_key or first_of(record, text_keys)
    language, speaker, question = (first_of(record, keys) for keys in (LANGUAGE_KEYS, SPEAKER_KEYS, QUESTION_KEYS))
    answer = "answer" if question is not None and "answer" in record else None
    if question is None and words is None and "answer" in record:
        words = "answer"  # to a question that the project asks of all
    found = {key for key in (words, language, speaker, question, answer) if key is not None}
    more = {key: value for key, value in record.items() if key not in {*found, *done}}
    read: dict[str, Any] = {
        "id": record.get("id"),
        "text": record.get(words) if words else None,
        "language": record.get(language) if language else None,
        "speaker": record.get(speaker) if speaker else None,
        "question": record.get(question) if question else None,
        "answer": record.get(answer) if answer else None,
        "offset": _number(record.get("offset")),
        "duration": _number(record.get("duration")),
    }
    more = {key: value for key, value in more.items() if key not in ("id", "offset", "duration")}
    unread = tuple(key for key in more if key not in CLIP_KEYS)
    return ForeignClip(audio=audio, more=more, unread=unread, **{**read, **facts})


def recording_of(record: Mapping[str, Any], key: str) -> Any:
    """The recording that a record without keys of no value names.

    Raises:
        ShapeError: it names none.
    """
    if key not in record:
        raise ShapeError(key, "missing")
    return record[key]


def _number(value: Any) -> Any:
    """A number that a table holds as text; anything else as it is, for the parser of records to judge."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


# --- NeMo -------------------------------------------------------------------------------------------------------------


def is_nemo(record: Mapping[str, Any]) -> bool:
    return record.get("audio_filepath") is not None


def read_nemo(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A line of a manifest: ``audio_filepath``, ``offset``, ``duration``, ``text``; ``question`` or ``context`` with
    ``answer`` for language models; ``source_lang`` and ``target_lang`` where the text may be a translation.

    Raises:
        ShapeError: its recording lies in a tar file.
    """
    record = filled(record)
    if "shard_id" in record:
        raise ShapeError("shard_id", "is of a tarred data set; give the manifest of the files it was made of")
    audio = recording_of(record, "audio_filepath")
    clip = clip_of(record, audio, text_keys=("text",), text_key=text_key, done={"audio_filepath", *_NEMO_DONE})
    source, target = record.get("source_lang"), record.get("target_lang")
    is_translation = target is not None and source is not None and target != source and text_key is None
    if is_translation and clip.question is None:
        clip = _as_translation(clip, str(target))
    if clip.question is not None and clip.answer is None:  # an older manifest calls the answer text
        clip = ForeignClip(**{**vars(clip), "answer": clip.text, "text": None})
    return [clip]


def _as_translation(clip: ForeignClip, language: str) -> ForeignClip:
    more = {**clip.more, "translation_language": language}
    unread = (*clip.unread, "translation_language") if language != "en" else clip.unread
    return ForeignClip(**{**vars(clip), "text": None, "translation": clip.text, "more": more, "unread": unread})


# --- WeNet ------------------------------------------------------------------------------------------------------------


def is_wenet_raw(record: Mapping[str, Any]) -> bool:
    return record.get("wav") is not None and "txt" in record


def read_wenet_raw(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A line of a raw list, ``{"key", "wav", "txt"}``, with ``start`` and ``end`` in seconds for a part of the file."""
    record = filled(record)
    facts: dict[str, Any] = {"id": record.get("key")}
    start, end = record.get("start"), record.get("end")
    if start is not None or end is not None:
        facts |= segment(start or 0.0, end, "end")
    done = {"key", "wav", "start", "end"}
    return [clip_of(record, recording_of(record, "wav"), text_keys=("txt",), text_key=text_key, done=done, **facts)]


def segment(start: Any, end: Any, at: str) -> dict[str, float]:
    """The part of a recording between two times in seconds; no end, or a negative one, is that of the recording.

    Raises:
        ShapeError: they are no such times.
    """
    try:
        first, last = float(start), None if end is None else float(end)
    except (TypeError, ValueError) as error:
        raise ShapeError(at, f"must be seconds; {start!r:.20} to {end!r:.20} are not") from error
    if last is None or last < 0:
        return {"offset": first}
    if not 0 <= first < last:
        raise ShapeError(at, f"a part from {first:g} s to {last:g} s is none")
    return {"offset": first, "duration": round(last - first, 9)}


# --- tables -----------------------------------------------------------------------------------------------------------


def is_common_voice(record: Mapping[str, Any]) -> bool:
    return {"client_id", "path", "sentence"} <= set(record)


def common_voice_entries(path: str, base_dir: str | None) -> Iterator[Entry]:
    """The rows of a table; its recordings lie in ``clips`` beside it, unless another folder is given."""
    return entries_of(path, base_dir or os.path.join(folder_of(path), "clips"))


def read_common_voice(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A row of a table of Common Voice; votes and numbers of the collection are left out."""
    record = filled(record)
    path = recording_of(record, "path")
    identifier = os.path.splitext(os.path.basename(str(path)))[0]
    done = {"path", *_VOTES}
    return [clip_of(record, path, text_keys=("sentence",), text_key=text_key, done=done, id=identifier)]


def is_file_name_row(record: Mapping[str, Any]) -> bool:
    return first_of(record, FILE_KEYS) is not None


def read_file_name_row(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A row of an audiofolder's metadata: ``file_name``, and ``transcription`` or another key of words."""
    record = filled(record)
    key = first_of(record, FILE_KEYS)
    if key is None:
        raise ShapeError("file_name", "missing")
    facts = {} if "id" in record else {"id": record[key]}
    return [clip_of(record, record[key], text_keys=SENTENCE_KEYS, text_key=text_key, done={key}, **facts)]


def is_clip(record: Mapping[str, Any]) -> bool:
    return record.get("audio") is not None


def read_clip(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A row with an ``audio`` column, of a data set or of our own clip records."""
    record = filled(record)
    audio = recording_of(record, "audio")
    return [clip_of(record, audio, text_keys=SENTENCE_KEYS, text_key=text_key, done={"audio"})]
