"""Messages to captioners and structurers, made from the Markdown files of ``prompts/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from audiollm.data.chat.base import ChatMessage
from audiollm.data.prompts import Prompt

FOLDER = Path(__file__).with_name("prompts")
NAMES = ("caption", "structure", "facts", "correct")
NONE_GIVEN = "(none)"


def labelling_prompts() -> dict[str, Prompt]:
    """The prompts by name; the hash of each tells in reports which wording was used."""
    return {name: Prompt(f"labelling/{name}", (FOLDER / f"{name}.md").read_text(encoding="utf-8")) for name in NAMES}


class LabellingMessages:
    """Puts a clip into the words of the prompts."""

    def __init__(self) -> None:
        self.prompts = labelling_prompts()

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each prompt, by id."""
        return {prompt.id: prompt.hash for prompt in self.prompts.values()}

    def caption(self, wav: bytes) -> list[ChatMessage]:
        """Asks for a description of a sound."""
        return [ChatMessage("user", self.prompts["caption"].text.strip(), wav)]

    def structure(
        self, *, duration_seconds: float, transcript: str, labels: Mapping[str, Any], caption: str
    ) -> list[ChatMessage]:
        """Asks for a SAP record of what is known of a clip."""
        facts = Template(self.prompts["facts"].text).substitute(
            duration=f"{duration_seconds:.1f}",
            transcript=transcript or NONE_GIVEN,
            labels=json.dumps(dict(labels), ensure_ascii=False, default=str) if labels else NONE_GIVEN,
            caption=caption or NONE_GIVEN,
        )
        return [ChatMessage("system", self.prompts["structure"].text.strip()), ChatMessage("user", facts.strip())]

    def correction(self, reply: str, problems: Sequence[str]) -> list[ChatMessage]:
        """Goes on after an answer that cannot be used."""
        listed = "\n".join(f"- {problem}" for problem in problems)
        text = Template(self.prompts["correct"].text).substitute(problems=listed)
        return [ChatMessage("assistant", reply), ChatMessage("user", text.strip())]
