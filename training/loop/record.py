"""Records of a run, by which it can be understood and repeated: config, versions, revision, metrics."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

from audiollm.data.files.json_lines import append_line, read_json_lines, write_json_lines
from audiollm.environment import installed_versions

METRICS_NAME = "metrics.jsonl"  # in a run's folder: see `MetricsLog`

_RECORDED_PACKAGES = (
    "audiollm", "torch", "transformers", "accelerate", "peft", "deepspeed", "datasets", "safetensors", "tokenizers",
    "numpy",
)  # fmt: skip


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

    It is no `AppendOnlyLog`: plots read it without a header, and a resumed run drops lines.

    Args:
        path: the file.
        last_step: lines of later updates are dropped: a run that was killed wrote them after the checkpoint it resumes
            from, and will write them again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= last_step]
        write_json_lines(path, kept, allow_nan=False)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line and hands it to the system, so that a killed process loses none."""
        with self.path.open("ab") as file:
            append_line(file, line, allow_nan=False)

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics file; a last line that a killed process left unfinished is ignored."""
    return list(read_json_lines(path, problems=[])) if path.exists() else []
