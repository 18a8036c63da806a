"""Records that are conversations already."""

from __future__ import annotations

from typing import Any

from audiollm.data.conversation.parsing import is_conversation
from audiollm.data.foreign.base import ForeignChat, ShapeError
from audiollm.data.foreign.detection import formats_of
from audiollm.data.foreign.formats import FORMATS

from .base import SourceRecord, UnfillableError


def conversation(record: SourceRecord) -> dict[str, Any]:
    """The record as it is."""
    if not is_conversation(record.fields):
        raise UnfillableError("is no conversation (no messages); name what is to be made of it in tasks")
    return dict(record.fields)


def text_only(record: SourceRecord) -> dict[str, Any]:
    """A conversation without sound, in our words or as Alpaca and its like have it: so that no text is unlearned."""
    made = dict(record.fields) if is_conversation(record.fields) else _of_other_project(record)
    if "audios" in made or _holds_audio(made.get("messages")):
        raise UnfillableError("holds audio, which task text is not for; use task conversation")
    return {**made, "task": made.get("task", "text")}


def _of_other_project(record: SourceRecord) -> dict[str, Any]:
    found = [name for name in formats_of(record.fields) if FORMATS[name].is_chat]
    if len(found) != 1:
        raise UnfillableError("is no conversation that is known (messages, ShareGPT, Alpaca, query and response, …)")
    try:
        (chat,) = FORMATS[found[0]].readings(record.fields, None)
    except ShapeError as error:
        raise UnfillableError(f"cannot be read as {FORMATS[found[0]].title}: {error}") from error
    assert isinstance(chat, ForeignChat)  # such formats give nothing else
    return chat.record


def _holds_audio(messages: Any) -> bool:
    contents = [message.get("content") for message in messages or () if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and part.get("type") not in (None, "text") for part in parts)
