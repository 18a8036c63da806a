"""What spoken answers look like: sound alone, with its words before it, or both in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from .types import Message, TextPart

SPOKEN, UNWRITTEN, IN_TURNS = "spoken", "unwritten", "in turns"


def spoken_forms(messages: Iterable[Message]) -> Counter[str]:
    """Counts the assistant's turns that hold sound (`SPOKEN`), those among them without text (`UNWRITTEN`), and those
    that write again behind a sound (`IN_TURNS`)."""
    forms = Counter[str]()
    for message in messages:
        is_text = [isinstance(part, TextPart) for part in message.content]
        if message.role != "assistant" or all(is_text):
            continue
        forms[SPOKEN] += 1
        forms[UNWRITTEN] += not any(is_text)
        forms[IN_TURNS] += (False, True) in pairwise(is_text)
    return forms
