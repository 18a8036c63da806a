"""Thoughts in a reply, in the marks that models write around them; an answer is what follows them."""

from __future__ import annotations

import re

from .answer_extraction import after_thinking

_NAME = r"think|thinking|thoughts?|reasoning|analysis|reflection|scratchpad"
_OPENINGS = re.compile(
    rf"<\s*(?:{_NAME})(?:\s[^<>]*)?>|\[(?:think|thinking)\]|◁(?:think|thinking)▷|<\|(?:{_NAME})\|>|"
    r"<\|begin_of_thought\|>|<\|channel\|>\s*(?:analysis|commentary)[^<>]*<\|message\|>",
    re.IGNORECASE,
)
_ENDINGS = re.compile(
    rf"<\s*/\s*(?:{_NAME})\s*>|\[/(?:think|thinking)\]|◁/(?:think|thinking)▷|<\|/(?:{_NAME})\|>|<\|end_of_thought\|>|"
    r"<\|end\|>(?:\s*<\|start\|>\w*)?|<\|channel\|>\s*final[^<>]*<\|message\|>",
    re.IGNORECASE,
)
_START, _END = "<think>", "</think>"
_FINISHED = re.compile(rf"{_START}(?:(?!{_START}).)*?{_END}", re.DOTALL)


def without_thoughts(reply: str) -> str | None:
    """What follows the thoughts; None where one has no end, so that nothing is an answer."""
    text = after_thinking(reply) if _END in reply else reply
    text = _ENDINGS.sub(_END, _OPENINGS.sub(_START, text))
    if _START not in text and _END not in text:
        return text
    text = _FINISHED.sub("", text)
    text = text.rpartition(_END)[2]
    return None if _START in text else text
