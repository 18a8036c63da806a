"""Records of clips: the words they use everywhere, and how records made of others are written and reported."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .files.json_lines import write_json_lines

SOUND_TYPES = ("speech", "sound", "music", "mix")
"""What ``sound_type`` says is heard; mix is speech over music."""
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
TEXT_KEYS = ("text", "transcript", "transcription", "linguistic_content")
"""Where the words spoken may stand, the first that is there counts."""


@dataclass
class RecordReport:
    """Counts, for the person who made the records.

    Attributes:
        records: records made, by sort.
        left_out: sources that gave none, by reason.
        examples: the place of the first source of each reason.
    """

    records: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def num_records(self) -> int:
        """Records of all sorts."""
        return sum(self.records.values())

    def leave_out(self, reason: str, where: str) -> None:
        """Counts a source that gives no record."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, where)

    def __str__(self) -> str:
        return "\n".join([self._made(), *self._left_out()])

    def _made(self) -> str:
        made = ", ".join(f"{count} {name}" for name, count in self.records.most_common())
        return f"{self.num_records} records" + (f" ({made})" if made else "")

    def _left_out(self) -> list[str]:
        return [f"left out: {n} ({reason}; first {self.examples[reason]})" for reason, n in self.left_out.most_common()]


def write_records(
    records: Iterable[dict[str, Any]], output: str | os.PathLike[str], report: RecordReport, *, if_none: str
) -> None:
    """Writes records as JSONL; the file appears whole or not at all.

    Args:
        records: made while they are written. Absolute paths of audio below the output's folder, in ``audio`` or in
            the content of messages, become relative to it.
        output: the file; its folder is made.
        report: is filled in while the records are made.
        if_none: what to say if there are none.

    Raises:
        ValueError: if there are none; nothing is written then.
    """
    folder = Path(os.path.abspath(output)).parent

    def relative() -> Iterator[dict[str, Any]]:
        for record in records:
            make_paths_relative(record, folder)
            yield record
        if not report.num_records:
            raise ValueError(f"{if_none}\n{report}")

    write_json_lines(output, relative())


def make_paths_relative(record: dict[str, Any], folder: Path) -> None:
    """Writes absolute paths of audio below a folder relative to it, in ``audio`` or in the content of messages."""
    if isinstance(record.get("audio"), str):
        record["audio"] = _relative_path(record["audio"], folder)
    for message in record.get("messages", ()):
        for part in message["content"]:
            if "path" in part:
                part["path"] = _relative_path(part["path"], folder)


def _relative_path(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix() if Path(path).is_relative_to(folder) else path
