"""What a record offers to an auditory sentence: a recording with words, a caption or neighbours, or turns of a talk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.audio_parts import CLIP_AUDIO_KEYS, clip_part
from audiollm.data.conversation.parsing import is_conversation, parse_conversation
from audiollm.data.conversation.problems import ConversationError
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.data.manifest import RecordError
from audiollm.data.voices.clips import words_of

KEPT_KEYS = ("licence", "attribution", "source", "group", "speaker", "language", "sha256")
"""What a sentence repeats of each of its sources: where it comes from, and what it may be used for."""


class UnusableError(ValueError):
    """A record that gives no segment; the message is the reason, the same for all records that share it."""


@dataclass(frozen=True)
class Offer:
    """What a record offers.

    Attributes:
        where: its file and line.
        audio: an audio part, of codes or an absolute path; None for a conversation.
        seconds: how long it takes; None: not known, as of codes without a duration.
        words: what is said, with single blanks; None: nothing is known to be.
        caption: what is heard, in words.
        group: the longer recording that it is a piece of, and its place in there; None: of none.
        turns: of a conversation.
        kept: see `KEPT_KEYS`, and the record's id.
    """

    where: str
    audio: dict[str, Any] | None = None
    seconds: float | None = None
    words: str | None = None
    caption: str | None = None
    group: str | None = None
    turns: Conversation | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def provenance(self) -> dict[str, Any]:
        """What a sentence says of it."""
        return {"record": self.where, **self.kept}


def read_offer(record: Any, where: str, base_dir: str | None, split: str | None = None) -> Offer:
    """Reads a clip ``{"audio" or "codes", "text", "caption", "group", …}``, or a conversation.

    Args:
        record: the record.
        where: its file and line.
        base_dir: folder that relative paths start from.
        split: take records of this split only; None: all.

    Raises:
        UnusableError: if it has no audio that a sentence could hold, or is of another split.
    """
    if not isinstance(record, Mapping):
        raise UnusableError("not an object")
    if split is not None and record.get("split") != split:
        raise UnusableError(f"not of split {split}")
    kept = {key: record[key] for key in ("id", *KEPT_KEYS) if record.get(key) is not None}
    if is_conversation(record):
        return _talk(record, where, base_dir, kept)
    audio, seconds = _audio(record, where, base_dir)
    return Offer(
        where,
        audio,
        seconds,
        words=_text(words_of(record)),
        caption=_text(record.get("caption")) or _text(record.get("label")),
        group=_text(record.get("group")),
        kept=kept,
    )


def _talk(record: Mapping[str, Any], where: str, base_dir: str | None, kept: dict[str, Any]) -> Offer:
    try:
        turns = parse_conversation(record, where=where, base_dir=base_dir)
    except ConversationError as error:
        raise UnusableError(f"no conversation: {error.reason}") from error
    if turns.tools or any(one.tool_calls or one.role == "tool" for one in turns.messages):
        raise UnusableError("a conversation with tools")
    if any(part.path is None and part.codes is None for part in turns.audio_parts):
        raise UnusableError("audio lies inside the record: run audiollm tokenize first")
    if any(part.path is not None and not os.path.isfile(part.path) for part in turns.audio_parts):
        raise UnusableError("the audio file is missing")
    if not any(one.role == "assistant" and one.content for one in turns.messages):
        raise UnusableError("a conversation without an answer")
    return Offer(where, turns=turns, kept=kept)


def _audio(record: Mapping[str, Any], where: str, base_dir: str | None) -> tuple[dict[str, Any], float | None]:
    """The recording as an audio part, codes if there are any, and its length."""
    stated = record.get("duration_seconds")
    seconds = float(stated) if isinstance(stated, (int, float)) and not isinstance(stated, bool) else None
    codes = record.get("codes")
    if codes is not None:
        if not codes or not isinstance(codes, list) or not all(type(code) is int and code >= 0 for code in codes):
            raise UnusableError("codes are no list of one row: run audiollm tokenize with --code-order flat")
        maker = record.get("audio_tokenizer")
        return {"type": "audio", "codes": codes, **({} if maker is None else {"audio_tokenizer": maker})}, seconds
    if all(record.get(key) is None for key in CLIP_AUDIO_KEYS):
        raise UnusableError("no audio")
    try:
        part = clip_part(record, where, base_dir)
    except RecordError as error:
        raise UnusableError(f"audio is neither a file nor codes: {error.reason}") from error
    if part.path is None:
        raise UnusableError("audio lies inside the record: run audiollm tokenize first")
    if not os.path.isfile(part.path):
        raise UnusableError("the audio file is missing")
    return {"type": "audio", "path": os.path.abspath(part.path), **part.cut}, seconds or _length(part)


def _length(part: AudioPart) -> float:
    try:
        return part.probe().duration_seconds
    except AudioError as error:
        raise UnusableError(f"the recording cannot be used: {error.reason}") from error


def _text(value: Any) -> str | None:
    """A text with single blanks that says something; None for anything else."""
    if not isinstance(value, str) or not any(character.isalnum() for character in value):
        return None
    return " ".join(value.split())
