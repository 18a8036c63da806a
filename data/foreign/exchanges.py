"""One question and one answer a record: query and response, prompt and completion, instruction and output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from audiollm.data.unread_keys import CONVERSATION_KEYS

from .base import ForeignChat, Reading, ShapeError, checked_text, filled, refuse_other_uses
from .recordings import AUDIO_KEYS, with_recordings
from .sharegpt import SYSTEM_KEYS, with_system

_Messages = list[dict[str, Any]]


def is_query_response(record: Mapping[str, Any]) -> bool:
    return "query" in record and "response" in record


def is_prompt_completion(record: Mapping[str, Any]) -> bool:
    return "prompt" in record and "completion" in record


def is_alpaca(record: Mapping[str, Any]) -> bool:
    return "instruction" in record and "output" in record


def read_query_response(record: Mapping[str, Any], text_key: str | None = None) -> list[Reading]:
    """ms-swift's ``query``, ``response``, and ``history`` of pairs in front of them."""
    return [_chat(record, ("query", "response", "history"), _query_response)]


def read_prompt_completion(record: Mapping[str, Any], text_key: str | None = None) -> list[Reading]:
    """TRL's ``prompt`` and ``completion``, each a text or a list of messages."""
    return [_chat(record, ("prompt", "completion"), _prompt_completion)]


def read_alpaca(record: Mapping[str, Any], text_key: str | None = None) -> list[Reading]:
    """Alpaca's ``instruction``, ``input`` on the next line if there is one, and ``output``; ``history`` as above."""
    return [_chat(record, ("instruction", "input", "output", "history"), _alpaca)]


def _chat(record: Mapping[str, Any], keys: tuple[str, ...], read: Callable[[dict[str, Any]], _Messages]) -> ForeignChat:
    refuse_other_uses(record)
    if record.get("tools"):
        raise ShapeError("tools", "are not taken over; leave the record out, or write it as messages")
    present = filled(record)
    made = with_recordings(with_system(read(present), present), present)
    used = {*keys, *SYSTEM_KEYS, *AUDIO_KEYS, "tools"}
    others = {key: value for key, value in present.items() if key not in used}
    return ForeignChat(record={**others, **made}, unread=tuple(key for key in others if key not in CONVERSATION_KEYS))


def _query_response(record: dict[str, Any]) -> _Messages:
    return [*_history(record), *_turns(record.get("query"), "query", record.get("response"), "response")]


def _alpaca(record: dict[str, Any]) -> _Messages:
    asked = checked_text(record.get("instruction"), "instruction")
    if "input" in record:
        asked += "\n" + checked_text(record["input"], "input")
    return [*_history(record), *_turns(asked, "instruction", record.get("output"), "output")]


def _prompt_completion(record: dict[str, Any]) -> _Messages:
    messages: _Messages = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        value = record.get(key)
        if not isinstance(value, list):
            messages.append({"role": role, "content": checked_text(value, key)})
            continue
        for index, message in enumerate(value):
            at = f"{key}[{index}]"
            if not isinstance(message, Mapping) or set(message) - {"role", "content"}:
                raise ShapeError(at, "must be a message of role and content, and nothing else")
            checked_text(message.get("content"), f"{at}.content")
            if (message.get("role") == "assistant") != (key == "completion"):
                raise ShapeError(
                    f"{at}.role",
                    "the completion is what the assistant says, and trained on; what it said before cannot be left "
                    "out of the loss: write the record as messages",
                )
            messages.append(dict(message))
    return messages


def _history(record: Mapping[str, Any]) -> _Messages:
    messages: _Messages = []
    history = record.get("history", [])
    if not isinstance(history, (list, tuple)):
        raise ShapeError("history", f"must be a list of pairs, not a {type(history).__name__}")
    for index, pair in enumerate(history):
        at = f"history[{index}]"
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ShapeError(at, "must be a pair of query and response")
        messages += _turns(pair[0], f"{at}[0]", pair[1], f"{at}[1]")
    return messages


def _turns(asked: Any, asked_at: str, answer: Any, answer_at: str) -> _Messages:
    return [
        {"role": "user", "content": checked_text(asked, asked_at)},
        {"role": "assistant", "content": checked_text(answer, answer_at)},
    ]
