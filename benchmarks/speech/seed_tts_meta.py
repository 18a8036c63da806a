"""The lists of seed-tts-eval: what is to be said, and whose voice it is to have.

A line is ``id|prompt text|prompt recording|text`` and may end in ``|recording of the text``; shorter ones are
``id|text|prompt recording`` and ``id|text``. Paths are relative to the list. The published scripts use a line again
where they do not understand the next one, and skip what was not synthesised; here a line that cannot be understood is
refused by its number, and what is missing is named.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FORMS = "id|prompt text|prompt recording|text, with |recording at the end or not; id|text|prompt recording; or id|text"


@dataclass(frozen=True)
class SpeechItem:
    """One line.

    Attributes:
        id: names the recording that is made: ``<id>.wav``.
        text: what is to be said.
        prompt_text: what the prompt says; None if the list does not tell.
        prompt: path of the recording whose voice is to be taken over; None if there is none.
        truth: path of a recording of the text by that voice; None if there is none.
    """

    id: str
    text: str
    prompt_text: str | None = None
    prompt: str | None = None
    truth: str | None = None

    @property
    def file_name(self) -> str:
        return f"{self.id}.wav"


@dataclass(frozen=True)
class SpeechList:
    """A list, and the hash of its file."""

    path: str
    sha256: str
    items: tuple[SpeechItem, ...]


def read_meta(path: str | os.PathLike[str], *, allow_missing_prompts: bool = False) -> SpeechList:
    """Reads a list.

    Args:
        path: the file, such as ``en/meta.lst``.
        allow_missing_prompts: take lines without a prompt recording, of which similarity cannot be measured.

    Raises:
        ValueError: a line is blank or has no known form, a field is empty, an id occurs twice or is no file name; each
            such line is named.
        OSError: the file cannot be read.
    """
    path = Path(path)
    data = path.read_bytes()
    lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()  # the end of the last line
    items: list[SpeechItem] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            item = _item(line.strip(), path.parent, allow_missing_prompts)
            if item.id in seen:
                raise ValueError(f"id {item.id!r} is that of line {seen[item.id]}")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        seen[item.id] = number
        items.append(item)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(f"{path} has {len(problems)} bad lines: {shown}")
    if not items:
        raise ValueError(f"{path} is empty; a line is {_FORMS}")
    return SpeechList(str(path), hashlib.sha256(data).hexdigest(), tuple(items))


def _item(line: str, folder: Path, allow_missing_prompts: bool) -> SpeechItem:
    if not line:
        raise ValueError("is blank")
    fields = line.split("|")
    truth = prompt_text = prompt = None
    if len(fields) == 5:
        name, prompt_text, prompt, text, truth = fields
    elif len(fields) == 4:
        name, prompt_text, prompt, text = fields
    elif len(fields) == 3:
        name, text, prompt = fields
        name = name.removesuffix(".wav")
    elif len(fields) == 2:
        name, text = fields
        if not allow_missing_prompts:
            raise ValueError("has no prompt recording; leave similarity out to do without")
    else:
        raise ValueError(f"has {len(fields)} fields; a line is {_FORMS}")
    for what, value in (("id", name), ("text", text), ("prompt recording", prompt), ("recording", truth)):
        if value is not None and not value.strip():
            raise ValueError(f"its {what} is empty")
    if name != Path(name).name or name in (".", ".."):
        raise ValueError(f"id {name!r} is no file name")
    return SpeechItem(name, text, prompt_text, _joined(folder, prompt), _joined(folder, truth))


def _joined(folder: Path, path: str | None) -> str | None:
    return None if path is None else os.path.join(folder, path)


def missing_recordings(items: Sequence[SpeechItem]) -> list[str]:
    """Prompts and true recordings that are not there."""
    named = (path for item in items for path in (item.prompt, item.truth) if path is not None)
    return sorted({path for path in named if not os.path.isfile(path)})


def scored_lines(items: Sequence[SpeechItem], folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """The lines ``recording|prompt recording|text`` that the published scorer reads, and the ids it skips.

    Args:
        items: of a list.
        folder: with the recordings that were made.
    """
    lines, missing = [], []
    for item in items:
        made = os.path.join(folder, item.file_name)
        if os.path.isfile(made):
            lines.append("|".join([made, *([item.prompt] if item.prompt is not None else []), item.text]))
        else:
            missing.append(item.id)
    return lines, missing
