"""Taking the answer out of a reply that also holds reasoning, markup or a sentence around it.

The steps are those of the evaluation toolkits of MiMo-Audio and Unified Audio Schema.
"""

from __future__ import annotations

import re

_MARKED = re.compile(
    r"^[^\S\n]*(?:(?:the[^\S\n]+)?correct[^\S\n]+(?:answer|choice)[^\S\n]+is[^\S\n]*[:\-]?|answer[^\S\n]*[:\-])(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_END_OF_THOUGHT = "</think>"
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))  # all there are, up to the ideographic space
_OUTER = _BLANKS + ".:;!?,"


def after_thinking(reply: str) -> str:
    """What follows the first ``</think>``; the whole reply if there is none."""
    before, mark, after = reply.partition(_END_OF_THOUGHT)
    return after if mark else before


def extract_answer(reply: str) -> str:
    """The part of a reply that states the answer; empty if there is nothing in it.

    Lines that begin with "the correct answer is", "correct choice is" or "answer:" state it in their rest, or in what
    follows if they have none; without such lines, bold spans do; without those, the first line that is not blank. Of
    several the last counts. Quotes, markup and marks of punctuation around it are dropped.
    """
    candidates = _marked(reply) or _BOLD.findall(reply)
    return _cleaned(candidates[-1] if candidates else _first_line(reply))


def _marked(reply: str) -> list[str]:
    candidates = []
    for match in _MARKED.finditer(reply):
        stated = match[1].strip()
        if not stated:
            following = reply[match.end() :]
            bold = _BOLD.search(following)
            stated = bold[1] if bold else _first_line(following)
        if stated:
            candidates.append(stated)
    return candidates


def _first_line(text: str) -> str:
    return next((line for line in text.split("\n") if line.strip()), "")


def _cleaned(candidate: str) -> str:
    text = _first_line(candidate).strip()
    if len(text) > 4 and text.startswith("**") and text.endswith("**"):
        text = text[2:-2]
    elif len(text) > 2 and text[0] in "`\"'" and text[-1] == text[0]:
        text = text[1:-1]
    return " ".join(text.strip(_OUTER).split())
