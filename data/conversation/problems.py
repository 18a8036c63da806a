"""Problems of a conversation record: file and line, field, reason."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiollm.data.manifest import RecordError


class ConversationError(RecordError):
    """A conversation record that is not one; the message is ``file:line: field: reason``."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one record."""

    where: str  # file and line
    field: str  # such as messages[1].content[0].text; empty: the record as a whole
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.reason) if part)


class ProblemLog:
    """Notes what is wrong with one record while it is read.

    Args:
        where: file and line of the record.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[Problem] = []

    def note(self, at: str, reason: str) -> None:
        """Notes a problem of the field ``at``; an empty name means the record as a whole."""
        self.problems.append(Problem(self.where, at, reason))

    def note_unknown_keys(self, value: Mapping[str, Any], known: Sequence[str], at: str) -> None:
        """Notes every key that is not known: in messages and parts such a key is a typing error."""
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
                self.note(f"{at}.{key}", f"unknown key; {hint}")


def kind_of(value: Any) -> str:
    """Names a value's JSON type, and the value where it is short."""
    names = {dict: "an object", list: "a list", type(None): "null", bool: "a boolean", str: "a string"}
    name = names.get(type(value)) or ("a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")
    return f"{name} ({value!r})" if isinstance(value, (str, int, float)) and len(repr(value)) < 40 else name
