"""Wordings of one and the same request: ids that runs can record, and a choice that follows from a key alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """One wording of a request.

    Attributes:
        id: ``<task>/<number>``, stable: wordings are only ever appended.
        text: the wording; may hold fields in braces, such as ``{question}``.
    """

    id: str
    text: str

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the text: changes with every character."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def numbered(name: str, texts: Sequence[str]) -> tuple[Prompt, ...]:
    """Gives wordings their ids, ``<name>/0`` and so on; the first is the standard one."""
    return tuple(Prompt(f"{name}/{number}", text) for number, text in enumerate(texts))


def draw(name: str, key: str, num_choices: int) -> int:
    """A number in [0, num_choices) that follows from the arguments: the same in every run, spread evenly over keys."""
    digest = hashlib.sha256(f"{name}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % num_choices


def choose(name: str, texts: Sequence[str], key: str | None) -> Prompt:
    """The wording that follows from a key, such as a record's id; None: the standard one."""
    return numbered(name, texts)[0 if key is None else draw(name, key, len(texts))]
