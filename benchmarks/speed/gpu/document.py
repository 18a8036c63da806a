"""What a check has found so far: one JSON file and one table in Markdown, written anew with every measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.facts import finite

from .plan import Section

JSON_NAME, TABLE_NAME, LOG_NAME = "gpu_check.json", "gpu_check.md", "gpu_check.log"


class CheckDocument:
    """The result of a check, on the disk at any moment.

    Args:
        folder: where to; it exists.
        config: what is recorded of how it was called.
        sections: what will be done, in order.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], sections: Sequence[Section]) -> None:
        self._folder = folder
        self.content: dict[str, Any] = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config": dict(config),
            "is_complete": False,
            "sections": {
                section.name: {"title": section.title, "status": "not run", "reason": "not begun", "measurements": {}}
                for section in sections
            },
        }
        self.write()

    def begin(self, section: Section, seconds: float) -> None:
        """Notes that a section has begun, and the seconds that it has."""
        own = self.content["sections"][section.name]
        own |= {"status": "running", "limit_seconds": seconds}
        own.pop("reason")
        self.write()

    def add(self, section: Section, line: Mapping[str, Any]) -> None:
        """Adds what a section has written: what it plans, or a measurement."""
        measured = self.content["sections"][section.name]["measurements"]
        for name in line.get("planned", ()):
            measured[name] = {"status": "not run"}
        if "name" in line:
            measured[line["name"]] = {key: value for key, value in line.items() if key != "name"}
        self.write()

    def end(self, section: Section, status: str, reason: str | None, seconds: float | None = None) -> None:
        """Notes how a section ended, and why measurements that it planned are missing."""
        own = self.content["sections"][section.name]
        own["status"] = status
        for key, value in (("reason", reason), ("seconds", seconds)):
            if value is not None:
                own[key] = value
        for one in own["measurements"].values():
            if one == {"status": "not run"}:
                one["reason"] = reason or "the section ended before"
        self.write()

    def complete(self) -> None:
        """Notes that nothing more will come."""
        self.content["is_complete"] = True
        self.write()

    def failures(self) -> list[str]:
        """Sections and measurements that failed: not those that were skipped, did not fit or had no time."""
        found = []
        for name, own in self.content["sections"].items():
            found += [f"{name}: {own['reason']}"] if own["status"] == "failed" else []
            for what, one in own["measurements"].items():
                found += [f"{name}, {what}: {one['reason']}"] if one["status"] == "failed" else []
        return found

    def write(self) -> None:
        """Writes both files; each appears whole or not at all."""
        write_json(self._folder / JSON_NAME, finite(self.content))
        with atomic_write(self._folder / TABLE_NAME) as file:
            file.write(self.table())

    def table(self) -> str:
        """The Markdown."""
        rows = ["| section | what | result | peak GiB |", "|---|---|---|---|"]
        for own in self.content["sections"].values():
            title = own["title"]
            if own["status"] != "done" or not own["measurements"]:
                rows.append(_row(title, "", _result(own), ""))
            for what, one in own["measurements"].items():
                peak = one.get("peak_gib")
                rows.append(_row(title, what, _result(one), "" if peak is None else f"{peak:.1f}"))
        state = "" if self.content["is_complete"] else " (not complete)"
        return f"# GPU check, {self.content['started']}{state}\n\n" + "\n".join(rows) + "\n"


def _result(one: Mapping[str, Any]) -> str:
    told = str(one.get("told", ""))
    if one["status"] == "done":
        return told
    return f"**{one['status']}**" + (f": {one['reason']}" if one.get("reason") else "")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
