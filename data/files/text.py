"""Text as UTF-8 can hold it."""

from __future__ import annotations

import re

HALF_A_CHARACTER = "holds half a character (one of a surrogate pair), which no tokenizer takes"
HALF_CHARACTERS = re.compile(r"[\ud800-\udfff]")


def is_whole(text: str) -> bool:
    """Whether a text is of whole characters: JSON may spell out half a surrogate pair, which UTF-8 cannot hold."""
    return text.isascii() or not HALF_CHARACTERS.search(text)
