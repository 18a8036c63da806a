"""ShareGPT: ``conversations`` of ``from`` and ``value``, as LLaMA-Factory, Qwen-Audio, NeMo and others write it.

The older shape of ms-swift, ``conversation`` of ``human`` and ``assistant``, is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiollm.data.unread_keys import CONVERSATION_KEYS

from .base import ForeignChat, Reading, ShapeError, checked_text, refuse_other_uses
from .recordings import AUDIO_KEYS, with_recordings

TURN_MARK = "turns."  # in front of unread keys of turns
TURN_KEYS = ("conversations", "conversation")
SYSTEM_KEYS = ("system", "system_prompt")
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "bot", "chatgpt", "model"), "assistant"),
    "system": "system",
}
_TOOL_ROLES = ("function_call", "function", "observation", "tool", "tool_call", "tool_response")
_SPEAKER_KEYS, _VALUE_KEYS = ("from", "role"), ("value", "content")
_LOSS_KEYS = ("loss", "weight")  # of ms-swift, and of OpenAI's fine-tuning and others
_TYPE_KEYS = ("type", "message_type")  # of NeMo, and of Kimi-Audio
_SEGMENT_KEYS = ("duration", "offset")
_PAIR_KEYS = ("human", "user", "assistant", "gpt", "bot")


def is_sharegpt(record: Mapping[str, Any]) -> bool:
    """Whether a record has a list of turns where ShareGPT has it."""
    return any(isinstance(record.get(key), (list, tuple)) for key in TURN_KEYS)


def read_sharegpt(record: Mapping[str, Any], text_key: str | None = None) -> list[Reading]:
    """One conversation; see `sharegpt_chat`."""
    return [sharegpt_chat(record)]


def sharegpt_chat(record: Mapping[str, Any]) -> ForeignChat:
    """The conversation in a record of ShareGPT.

    Raises:
        ShapeError: a turn of a tool, of a kind that is not known, or without loss; pictures; preferences.
    """
    refuse_other_uses(record)
    if record.get("tools"):
        raise ShapeError("tools", "are not taken over from ShareGPT; leave the record out, or write it as messages")
    key = next(key for key in TURN_KEYS if isinstance(record.get(key), (list, tuple)))
    turns = record[key]
    if not turns:
        raise ShapeError(key, "is empty; give at least one turn")
    for index, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise ShapeError(f"{key}[{index}]", "must be an object with from and value")
    unread: list[str] = []
    if _is_typed(turns):  # recordings are turns of their own
        read = {"messages": with_system(_typed_messages(turns, key), record)}
    else:
        messages = [made for index, turn in enumerate(turns) for made in _messages(turn, f"{key}[{index}]", unread)]
        read = with_recordings(with_system(messages, record), record)
    used = {*TURN_KEYS, *SYSTEM_KEYS, *AUDIO_KEYS, "tools"}
    others = {key: value for key, value in record.items() if key not in used}
    unread += [key for key, value in others.items() if value is not None and key not in CONVERSATION_KEYS]
    return ForeignChat(record={**others, **read}, unread=tuple(dict.fromkeys(unread)))


def with_system(messages: list[dict[str, Any]], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Messages behind the record's system prompt, if it has one.

    Raises:
        ShapeError: the messages have another one.
    """
    key = next((key for key in SYSTEM_KEYS if record.get(key)), None)
    if key is None:
        return messages
    prompt = checked_text(record[key], key)
    present = [message["content"] for message in messages if message["role"] == "system"]
    if present == [prompt]:
        return messages
    if present:
        raise ShapeError(key, "is a system prompt, and the turns hold another; give one")
    return [{"role": "system", "content": prompt}, *messages]


def refuse_turn_without_loss(turn: Mapping[str, Any], at: str) -> None:
    """Refuses a turn that its project would not train on: here loss is on all that the assistant says.

    Raises:
        ShapeError: it is such a turn, or what it says of loss is neither yes nor no.
    """
    for key in _LOSS_KEYS:
        value = turn.get(key)
        if value is None or (value in (0, 1) and (value == 1 or _role(turn, at) != "assistant")):
            continue
        what = "is not trained on" if value == 0 else f"says {value!r} where true or false is meant"
        raise ShapeError(f"{at}.{key}", f"{what}; here every assistant turn is, and no other: split the record")


def _is_typed(turns: Any) -> bool:
    return any(_type(turn) != "text" for turn in turns)


def _type(turn: Mapping[str, Any]) -> Any:
    return next((turn[key] for key in _TYPE_KEYS if turn.get(key) is not None), "text")


def _role(turn: Mapping[str, Any], at: str) -> str:
    key = next((key for key in _SPEAKER_KEYS if turn.get(key) is not None), None)
    if key is None:
        raise ShapeError(f"{at}.from", "missing; say who speaks, such as human or gpt")
    name = str(turn[key]).lower()
    if name in _TOOL_ROLES:
        raise ShapeError(f"{at}.{key}", f"{name}: calls of tools are not taken over; write the record as messages")
    if name not in _ROLES:
        raise ShapeError(f"{at}.{key}", f"{name!r:.40} is not known; use one of {', '.join(_ROLES)}")
    return _ROLES[name]


def _value(turn: Mapping[str, Any], at: str) -> str:
    key = next((key for key in _VALUE_KEYS if turn.get(key) is not None), "value")
    return checked_text(turn.get(key), f"{at}.{key}")


def _messages(turn: Mapping[str, Any], at: str, unread: list[str]) -> list[dict[str, Any]]:
    """One message, or the two of a pair of ms-swift."""
    pairs = [key for key in _PAIR_KEYS if turn.get(key) is not None]
    if pairs and not any(turn.get(key) is not None for key in _SPEAKER_KEYS):
        unread += [f"{TURN_MARK}{key}" for key, value in turn.items() if value is not None and key not in pairs]
        return [{"role": _ROLES[key], "content": checked_text(turn[key], f"{at}.{key}")} for key in pairs]
    refuse_turn_without_loss(turn, at)
    known = (*_SPEAKER_KEYS, *_VALUE_KEYS, *_LOSS_KEYS, *_TYPE_KEYS)
    unread += [f"{TURN_MARK}{key}" for key, value in turn.items() if value is not None and key not in known]
    if isinstance(turn.get("content"), (list, tuple)) and turn.get("value") is None:  # parts, as transformers has them
        return [{"role": _role(turn, at), "content": turn["content"]}]
    return [{"role": _role(turn, at), "content": _value(turn, at)}]


def _typed_messages(turns: Any, key: str) -> list[dict[str, Any]]:
    """Turns of NeMo and Kimi-Audio, each a text or a recording; what one side says in a row is one message."""
    messages: list[dict[str, Any]] = []
    for index, turn in enumerate(turns):
        at = f"{key}[{index}]"
        refuse_turn_without_loss(turn, at)
        known = (*_SPEAKER_KEYS, *_VALUE_KEYS, *_LOSS_KEYS, *_TYPE_KEYS, *_SEGMENT_KEYS)
        unknown = [name for name in turn if name not in known]
        if unknown:
            raise ShapeError(f"{at}.{unknown[0]}", "unknown key of a turn with a type")
        role, part = _role(turn, at), _typed_part(turn, at)
        if not messages or messages[-1]["role"] != role:
            messages.append({"role": role, "content": [part]})
            continue
        content = messages[-1]["content"]
        if part["type"] == "text" and content[-1]["type"] == "text":
            content[-1]["text"] += " " + part["text"]
        else:
            content.append(part)
    return messages


def _typed_part(turn: Mapping[str, Any], at: str) -> dict[str, Any]:
    kind = _type(turn)
    if kind not in ("text", "audio"):
        key = next(key for key in _TYPE_KEYS if turn.get(key) is not None)
        raise ShapeError(f"{at}.{key}", f"{kind!r:.40} is not known; use text or audio")
    value = _value(turn, at)
    if kind == "audio":
        return {
            "type": "audio",
            "path": value,
            **{key: turn[key] for key in _SEGMENT_KEYS if turn.get(key) is not None},
        }
    return {"type": "text", "text": value}
