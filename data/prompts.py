"""Wordings of one and the same request, with ids and hashes that runs can record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

TASK_ANSWERS = {
    "transcribe": "text",
    "translate": "translation",
    "language": "language",
    "describe": "caption",
    "sound": "label",
    "emotion": "emotion",
}
"""Of a task about a clip: the fact that answers it, unless a key of the text is named."""


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
