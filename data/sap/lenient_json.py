"""Reads what a language model meant as JSON: other quotes, missing brackets, prose around it; and says what it did.

Nothing is made up: a value that breaks off is dropped rather than kept as if it were whole (``3`` may be half of
``34``), and where marks are missing around words, so that it cannot be told which of them are the value, the text is
refused. Libraries that repair JSON guess in both cases.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

_CUT = object()  # a value that breaks off
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "‚": "‘", "«": "»", "»": "«", "‹": "›", "›": "‹"}
_QUOTE_MARKS = "".join(dict.fromkeys("".join(_QUOTES) + "".join(_QUOTES.values())))
_LITERALS = {"null": None, "none": None, "true": True, "false": False}
_BARE = re.compile(r"[^\s,:\[\]{}\"]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
# A pair of surrogates is one character.
_ESCAPE = re.compile(r'\\(u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[\da-fA-F]{4}|["\\/bfnrt])')
_OPENING = "[" + "".join(_QUOTES) + "]"
_AFTER_STRING = re.compile(
    rf"""\s*(?:
        \Z | [:}}\]] | ``` | // | /\*                              # a mark, or nothing
        | ,\s*(?:\Z | {_OPENING} | [{{\[}}\]/\d-] | \w+\s*: | (?:null|none|true|false)\b)  # a comma, another member
        | (?<=\n)\s*{_OPENING}                                    # another member on a line of its own
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_STARTS_OBJECT = re.compile(rf"\{{(?=\s*(?:{_OPENING}|\}}|\w+\s*:|\Z))")
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
        value, end, repairs = _read_at(text, start)
    before, after = text[:start].strip(), text[end:].strip()
    if re.fullmatch(r"```\w*", before) and after in ("```", ""):
        repairs.insert(0, "took it out of its fence")
    elif before or after:
        repairs.insert(0, "left out text around the object")
    return value, list(dict.fromkeys(repairs))


def _read_at(text: str, start: int) -> tuple[Any, int, list[str]]:
    """The value at a place, where it ends, and what was repaired.

    A text may hold quotes of other kinds, so that only its own kind ends it; unless it would have no end then.

    Raises:
        UnreadableError: likewise.
    """
    reader, error = _Reader(text, start), None
    try:
        value = reader.value(0)
    except UnreadableError as unreadable:
        error = unreadable
    if error is not None or reader.is_broken_off:
        with contextlib.suppress(UnreadableError):  # then what was found first counts
            other = _Reader(text, start, any_quote_ends=True)
            other_value = other.value(0)
            if error is not None or not other.is_broken_off:
                return other_value, other.position, other.repairs
    if error is not None:
        raise error
    return value, reader.position, reader.repairs


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
    """Descends through a text; `position` is the next character.

    Args:
        text: what is read.
        position: where the value begins.
        any_quote_ends: take a quote of any kind for the end of a text where one may end, unless it closes another
            that was opened inside.
    """

    def __init__(self, text: str, position: int, *, any_quote_ends: bool = False) -> None:
        self.text = text
        self.position = position
        self.repairs: list[str] = []
        self.is_broken_off = False
        self._any_quote_ends = any_quote_ends

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
                self._close_broken_off()
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
            self._close_broken_off()
            return True
        if self._peek() in "}]":
            # The other bracket: this one was forgotten.
            self.repairs.append(f"added a missing {bracket}")
            return True
        if not comma and has_members:
            self.repairs.append("added a missing comma")
        return False

    def _close_broken_off(self) -> None:
        self.is_broken_off = True
        self.repairs.append("closed what broke off")

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
        repairs = [] if opening == '"' else ["read other quotes as double quotes"]  # done if the string ends
        characters: list[str] = []
        inner: list[str] = []  # what would close the quotes that were opened inside
        index = self.position + 1
        while index < len(self.text):
            character = self.text[index]
            if character == "\\" and index + 1 < len(self.text):
                index = self._escape(index, characters, repairs)
                continue
            if inner and character == inner[-1]:
                inner.pop()
            elif self._may_close(opening, character):
                if self._ends_string(index + 1):
                    self.position = index + 1
                    self.repairs += repairs
                    if character not in (opening, _QUOTES[opening]):
                        self.repairs.append("read other quotes as double quotes")
                    return "".join(characters)
                repairs.append("kept quotes inside a text")
            elif character < " ":
                kind = "line breaks" if character in "\n\r" else "control characters"
                repairs.append(f"kept {kind} inside a text")
            if self._any_quote_ends and character in "“„«‹":
                inner.append(_QUOTES[character])
            characters.append(character)
            index += 1
        self.position = len(self.text)
        self.is_broken_off = True
        return _CUT

    def _may_close(self, opening: str, character: str) -> bool:
        return character in (opening, _QUOTES[opening]) or (self._any_quote_ends and character in _QUOTE_MARKS)

    def _escape(self, index: int, characters: list[str], repairs: list[str]) -> int:
        """Takes an escape at ``index``; returns the position behind it. What escapes nothing is kept as it stands."""
        match = _ESCAPE.match(self.text, index)
        if match is not None:
            characters.append(json.loads(f'"{match[0]}"'))
            return match.end()
        escaped = self.text[index + 1]
        if escaped in _QUOTE_MARKS:
            repairs.append("left out a backslash before a quote")
            characters.append(escaped)
        else:
            repairs.append("kept a backslash that escapes nothing")
            characters.append("\\" + escaped)
        return index + 2

    def _ends_string(self, index: int) -> bool:
        """Whether a quote before ``index`` closes its string: what follows is a mark of JSON, not a word."""
        return _AFTER_STRING.match(self.text, index) is not None

    def _bare(self) -> Any:
        word = self._bare_word()
        if not self._peek():
            self.is_broken_off = True
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
