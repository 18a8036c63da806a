"""Calls of functions in an answer: the model writes them as ``<tool_call>`` JSON, clients read them as a list."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_CALL = re.compile(rf"\s*{_OPEN}(.*?){_CLOSE}", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call of a function; its arguments as JSON."""

    name: str
    arguments: str
    identifier: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")

    def to_dict(self) -> dict[str, Any]:
        """As clients of OpenAI read it."""
        return {
            "id": self.identifier,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


def split_tool_calls(text: str) -> tuple[str, list[ToolCall]]:
    """The text of an answer without its calls, and the calls. One that is malformed stays text: the client sees it."""
    calls: list[ToolCall] = []

    def taken(found: re.Match[str]) -> str:
        call = _parsed(found[1])
        if call is None:
            return found[0]
        calls.append(call)
        return ""

    return _CALL.sub(taken, text), calls


def without_tool_calls() -> Generator[str, str | None, None]:
    """The text of a stream without its calls: primed, it takes pieces of text by ``send``, and None at the end."""
    filtered = _filtered()
    next(filtered)
    return filtered


def _filtered() -> Generator[str, str | None, None]:
    """What may be part of a call is held back until it is known to be one, or not."""
    held, given = "", ""
    while (piece := (yield given)) is not None:
        held += piece
        place = held.find("<")
        if place < 0:
            given, held = held, ""
        elif _OPEN.startswith(held[place : place + len(_OPEN)]):
            given, held = held[:place], held[place:]
            if _CLOSE in held:
                rest, _ = split_tool_calls(held)
                given, held = given + rest, ""
        else:
            given, held = held[: place + 1], held[place + 1 :]
    yield split_tool_calls(held)[0]


def _parsed(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    return ToolCall(
        call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    )
