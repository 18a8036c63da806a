"""Reads what a language model meant as JSON: other quotes, missing brackets, prose around it; and says what it did.

Nothing is made up: a value that breaks off is dropped rather than kept as if it were whole (``3`` may be half of
``34``), and where marks are missing around words, so that it cannot be told which of them are the value, the text is
refused. Libraries that repair JSON guess in both cases.
"""

from __future__ import annotations

import json
import re
from typing import Any

_CUT = object()  # a value that breaks off
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“"}
_LITERALS = {"null": None, "none": None, "true": True, "false": False}
_BARE = re.compile(r"[^\s,:\[\]{}\"]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
# A pair of surrogates is one character.
_ESCAPE = re.compile(r'\\(u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[\da-fA-F]{4}|["\\/bfnrt])')
_AFTER_STRING = re.compile(
    r"""\s*(?:
        \Z | [:}\]] | ``` | // | /\*                               # a mark, or nothing
        | ,\s*(?:\Z | [{\[}\]"'“‘„/\d-] | \w+\s*: | (?:null|none|true|false)\b)  # a comma and another member
        | (?<=\n)\s*["'“‘„]                                       # another member on a line of its own
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_STARTS_OBJECT = re.compile(r"""\{(?=\s*(?:["'“‘„}]|\w+\s*:|\Z))""")
_THOUGHTS = re.compile(r".*</think>", re.DOTALL)
_MAX_DEPTH = 32


class UnreadableError(ValueError):
    """A text in which no object can be found; the message is the reason."""


def read_lenient_json(text: str) -> tuple[Any, list[str]]:
    """Reads the first object of a text.

    Args:
        text: a model's answer.

    Returns:
        The value, and what had to be repaired; nothing if the text is JSON as it should be.

    Raises:
        UnreadableError: if there is no object, or its marks cannot be told from its words.
    """
    if _is_json(text):
        return _STRICT.decode(text), []
    thoughts = _THOUGHTS.match(text)
    opening = _STARTS_OBJECT.search(text, thoughts.end() if thoughts else 0)
    if opening is None:
        raise UnreadableError("there is no object")
    start = opening.start()
    repairs: list[str] = []
    try:
        value, end = _STRICT.raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        reader = _Reader(text, start)
        value, end, repairs = reader.value(0), reader.position, reader.repairs
    before, after = text[:start].strip(), text[end:].strip()
    if re.fullmatch(r"```\w*", before) and after in ("```", ""):
        repairs.insert(0, "took it out of its fence")
    elif before or after:
        repairs.insert(0, "left out text around the object")
    return value, list(dict.fromkeys(repairs))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Python would keep the last value of a key that is given twice, and say nothing."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableError(f"{twice!r:.40} is given twice")
    return content


def _refuse_constant(name: str) -> Any:
    """Python reads NaN and infinity, which are no JSON."""
    raise UnreadableError(f"{name} is no value")


_STRICT = json.JSONDecoder(object_pairs_hook=_with_each_key_once, parse_constant=_refuse_constant)


class _Reader:
    """Descends through a text; `position` is the next character."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position
        self.repairs: list[str] = []

    def value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise UnreadableError("brackets are nested too deeply")
        self._skip()
        next_character = self._peek()
        if next_character == "{":
            return self._object(depth)
        if next_character == "[":
            return self._array(depth)
        if next_character in _QUOTES:
            return self._string()
        return self._bare()

    def _object(self, depth: int) -> Any:
        self.position += 1
        content: dict[str, Any] = {}
        given: set[str] = set()
        while not self._closes("}", bool(given)):
            key = self._key()
            self._skip()
            if key is _CUT or not self._peek():
                self.repairs.append("closed what broke off")
                break
            if self._peek() != ":":
                raise UnreadableError(f"there is no colon after {key!r:.40}")
            self.position += 1
            if key in given:
                raise UnreadableError(f"{key!r:.40} is given twice")
            given.add(key)
            value = self.value(depth + 1)
            if value is _CUT:
                self.repairs.append(f"dropped {key}, which breaks off")
            else:
                content[key] = value
        return content

    def _array(self, depth: int) -> Any:
        self.position += 1
        items: list[Any] = []
        while not self._closes("]", bool(items)):
            item = self.value(depth + 1)
            if item is _CUT:
                self.repairs.append("dropped the last of a list, which breaks off")
            else:
                items.append(item)
        return items

    def _closes(self, bracket: str, has_members: bool) -> bool:
        """Whether the object or list ends here; takes commas between its members."""
        self._skip()
        comma = False
        while self._peek() == ",":
            comma = True
            self.position += 1
            self._skip()
        if self._peek() == bracket:
            if comma:
                self.repairs.append("removed a trailing comma")
            self.position += 1
            return True
        if not self._peek() or self.text.startswith("```", self.position):
            self.repairs.append("closed what broke off")
            return True
        if self._peek() in "}]":
            # The other bracket: this one was forgotten.
            self.repairs.append(f"added a missing {bracket}")
            return True
        if not comma and has_members:
            self.repairs.append("added a missing comma")
        return False

    def _key(self) -> Any:
        if self._peek() in _QUOTES:
            return self._string()
        key = self._bare_word()
        if not key:
            raise UnreadableError(f"there is {self._peek()!r} where a key should be")
        self.repairs.append("put quotes around keys")
        return key

    def _string(self) -> Any:
        opening = self._peek()
        closing = _QUOTES[opening]
        repairs = [] if opening == '"' else ["read other quotes as double quotes"]  # done if the string ends
        characters: list[str] = []
        index = self.position + 1
        while index < len(self.text):
            character = self.text[index]
            if character == "\\" and index + 1 < len(self.text):
                index = self._escape(index, characters, repairs)
                continue
            if character in (closing, opening):
                if self._ends_string(index + 1):
                    self.position = index + 1
                    self.repairs += repairs
                    return "".join(characters)
                repairs.append("kept quotes inside a text")
            elif character < " ":
                kind = "line breaks" if character in "\n\r" else "control characters"
                repairs.append(f"kept {kind} inside a text")
            characters.append(character)
            index += 1
        self.position = len(self.text)
        return _CUT

    def _escape(self, index: int, characters: list[str], repairs: list[str]) -> int:
        """Takes an escape at ``index``; returns the position behind it."""
        match = _ESCAPE.match(self.text, index)
        if match is None:
            repairs.append("left out a backslash that escapes nothing")
            characters.append(self.text[index + 1])
            return index + 2
        characters.append(json.loads(f'"{match[0]}"'))
        return match.end()

    def _ends_string(self, index: int) -> bool:
        """Whether a quote before ``index`` closes its string: what follows is a mark of JSON, not a word."""
        return _AFTER_STRING.match(self.text, index) is not None

    def _bare(self) -> Any:
        word = self._bare_word()
        if not self._peek():
            return _CUT  # "tru", 12 of 123, or nothing at all
        if word.lower() in _LITERALS:
            if word not in ("null", "true", "false"):
                self.repairs.append(f"read {word} as {json.dumps(_LITERALS[word.lower()])}")
            return _LITERALS[word.lower()]
        if _NUMBER.fullmatch(word):
            return json.loads(word)
        raise UnreadableError(f"{word or self._peek()!r:.40} is no value")

    def _bare_word(self) -> str:
        match = _BARE.match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match[0]

    def _skip(self) -> None:
        while True:
            while self._peek().isspace():
                self.position += 1
            comment = _COMMENT.match(self.text, self.position)
            if comment is None:
                return
            self.repairs.append("left out comments")
            self.position = comment.end()

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]
