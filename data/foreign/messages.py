"""``messages`` of ``role`` and ``content``: ours, and those of OpenAI, transformers, LLaMA-Factory and ms-swift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiollm.data.unread_keys import CONVERSATION_KEYS

from .base import ForeignChat, Reading, ShapeError, refuse_other_uses
from .recordings import AUDIO_KEYS, with_recordings
from .sharegpt import SYSTEM_KEYS, refuse_turn_without_loss, with_system


def is_messages(record: Mapping[str, Any]) -> bool:
    return record.get("messages") is not None


def read_messages(record: Mapping[str, Any], text_key: str | None = None) -> list[Reading]:
    """One conversation, with its recordings in their places; parts of content are for the parser of conversations.

    Raises:
        ShapeError: a turn that is not trained on, the API's own reference to sound, pictures, preferences.
    """
    refuse_other_uses(record)
    messages = record["messages"]
    if not isinstance(messages, (list, tuple)) or not all(isinstance(message, Mapping) for message in messages):
        raise ShapeError("messages", "must be a list of objects with role and content")
    made = with_system([_plain(message, f"messages[{i}]") for i, message in enumerate(messages)], record)
    others = {key: value for key, value in record.items() if key not in ("messages", *SYSTEM_KEYS)}
    read = with_recordings(made, record)
    kept = {key: value for key, value in others.items() if key not in AUDIO_KEYS or not value}
    return [ForeignChat(record={**kept, **read}, unread=_unread({**kept, **read}))]


def _plain(message: Mapping[str, Any], at: str) -> dict[str, Any]:
    refuse_turn_without_loss(message, at)
    if message.get("audio") is not None:
        raise ShapeError(
            f"{at}.audio", "is the API's own name of what it said; give the recording as an input_audio part"
        )
    plain = {key: value for key, value in message.items() if key not in ("loss", "weight", "audio")}
    return plain | {"role": "system"} if plain.get("role") == "developer" else plain  # of the OpenAI API


def _unread(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key for key, value in record.items() if value is not None and key not in CONVERSATION_KEYS)
