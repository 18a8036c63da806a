"""What a run leaves behind so that it can be understood and repeated: config, versions, fingerprints, metrics."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

from audiollm.data.files.atomic import atomic_write
from audiollm.environment import installed_versions

_RECORDED_PACKAGES = (
    "audiollm", "torch", "transformers", "accelerate", "peft", "deepspeed", "datasets", "safetensors", "tokenizers",
    "numpy",
)  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinity are refused, as no other program reads them."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_json_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Writes one JSON object per line, atomically."""
    with atomic_write(path) as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def check_same_run(path: Path, settings: dict[str, Any]) -> None:
    """Makes the folder of a run of several steps, or finds that it belongs to one of the same settings.

    Args:
        path: file in the folder that holds the settings.
        settings: what must be equal for finished steps to be kept.

    Raises:
        ValueError: if the folder holds something else.
    """
    folder = path.parent
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        changed = ", ".join(name for name in settings if found.get(name) != settings[name])
        if changed:
            raise ValueError(f"{folder} holds a run with another {changed}; name another --output")
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something that is not a run of this script; name another --output")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def config_as_json(config: Any) -> dict[str, Any]:
    """The resolved config, a dataclass. JSON is YAML: saved, it repeats the run as ``--config``."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def package_versions() -> dict[str, str | None]:
    """Installed versions of what decides a run's numbers; None where a package is absent."""
    return installed_versions(_RECORDED_PACKAGES)


def git_revision(folder: Path) -> str | None:
    """Commit checked out in ``folder``, with ``-dirty`` after it if files differ; None outside a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


class MetricsLog:
    """``metrics.jsonl``: one line per logged update or evaluation, appended as they happen.

    Args:
        path: the file.
        last_step: lines of later updates are dropped: a run that was killed wrote them after the checkpoint it resumes
            from, and will write them again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= last_step]
        write_json_lines(path, kept)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line and hands it to the system, so that a killed process loses none."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics file; a last line that a killed process left unfinished is ignored."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
