"""Recordings beside a conversation: which key holds them, and where in the text each belongs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .base import ShapeError

AUDIO_KEYS = ("audios", "audio", "sound", "speech")
PLACEHOLDER = "<audio>"
_PLACEHOLDERS = {"sound": "<sound>", "speech": "<speech>"}  # beside the key of that name
# As Qwen-Audio and FunASR write a recording into the text.
_INLINE = re.compile(r"<audio>([^<>\n]+)</audio>|<\|startofspeech\|>!?([^<>\n]+)<\|endofspeech\|>")


def with_recordings(messages: list[dict[str, Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    """Messages, and the recordings for each ``<audio>`` in them, as our records have them.

    If no text says where they belong, the recordings stand in front of the first user turn, in their order.

    Args:
        messages: with texts as contents; if one holds parts, recordings stay where the record has them.
        record: may hold recordings under one of `AUDIO_KEYS`.

    Returns:
        ``messages``, and ``audios`` if there are any.

    Raises:
        ShapeError: recordings under two keys, or nobody to hear them.
    """
    keys = [key for key in AUDIO_KEYS if record.get(key)]
    if not all(isinstance(message.get("content"), str) for message in messages):
        return {"messages": messages, **{key: record[key] for key in keys}}
    if len(keys) > 1:
        raise ShapeError(keys[1], f"holds recordings, and so does {keys[0]}; give them once")
    audios = _as_list(record[keys[0]]) if keys else []
    texts = [message["content"] for message in messages]
    inline = inline_recordings(texts)
    if inline and audios:
        raise ShapeError(keys[0], "holds recordings, and so does the text, as <audio>path</audio>; give them once")
    texts = [_INLINE.sub(PLACEHOLDER, text) for text in texts]
    other = _PLACEHOLDERS.get(keys[0]) if keys else None
    if other is not None and not any(PLACEHOLDER in text for text in texts):
        texts = [text.replace(other, PLACEHOLDER) for text in texts]
    made = [{**message, "content": text} for message, text in zip(messages, texts, strict=True)]
    audios = audios or inline
    if not audios:
        return {"messages": made}
    if not any(PLACEHOLDER in text for text in texts):
        first = next((message for message in made if message["role"] == "user"), None)
        if first is None:
            raise ShapeError(keys[0], f"has no {PLACEHOLDER} in the text to stand in, and there is no user turn")
        first["content"] = PLACEHOLDER * len(audios) + first["content"]
    return {"messages": made, "audios": audios}


def inline_recordings(texts: Iterable[str]) -> list[str]:
    """The recordings that texts name between marks of other projects."""
    return [(qwen or funasr).strip() for text in texts for qwen, funasr in _INLINE.findall(text)]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
