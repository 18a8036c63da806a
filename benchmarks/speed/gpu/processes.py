"""Runs a section as a process of its own: it ends with its time, and takes no other with it if it breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import audiollm

from .plan import Section, distribution_of, how_to_get

_POLL_SECONDS = 0.2
_TOLD_LINES = 4  # of what a process that failed has said


@dataclass(frozen=True)
class Ending:
    """How a section ended.

    Attributes:
        status: "done", "stopped" by its time, "skipped" or "failed".
        reason: why, if it is not done.
    """

    status: str
    reason: str | None = None


def run_process(
    section: Section,
    settings: dict[str, Any],
    seconds: float,
    log: Path,
    tell: Callable[[dict[str, Any]], None],
    wait: Callable[[float], None],
    clock: Callable[[], float] = time.time,
) -> Ending:
    """Runs a section until it ends, or its time does.

    Args:
        section: which.
        settings: fields of `SectionSettings`, but for ``results``, ``ends_at`` and ``arguments``.
        seconds: that it has.
        log: file to which everything is added that it says.
        tell: is given each line of its results as it comes.
        wait: is called all the time, with the seconds that the section has taken.
        clock: gives the seconds since 1970.
    """
    started = clock()
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as place, log.open("ab") as said:
        lines, config = Path(place) / "results.jsonl", Path(place) / "settings.json"
        lines.touch()
        told = settings | {"results": str(lines), "ends_at": started + seconds, "arguments": section.arguments}
        config.write_text(json.dumps(told), encoding="utf-8")
        said.write(f"\n===== {section.name}\n".encode())
        said.flush()
        begins_at = said.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", section.module, str(config)],
            stdout=said, stderr=said, env=_environment(),
            preexec_fn=os.setpgrp,  # what it starts itself ends with it
        )  # fmt: skip
        reader = _Lines(lines, tell)
        try:
            while process.poll() is None and clock() < started + seconds:
                time.sleep(_POLL_SECONDS)
                reader.read()
                wait(clock() - started)
            is_over = process.poll() is None
        finally:
            _end(process)
        reader.read()
        if is_over:
            return Ending("stopped", f"its {seconds:.0f} s were over")
        return Ending("done") if process.returncode == 0 else _failure(process.returncode, log, begins_at)


def _environment() -> dict[str, str]:
    root = str(Path(audiollm.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


class _Lines:
    """Hands on what is added to a file of JSON lines."""

    def __init__(self, path: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._tell, self._position = path, tell, 0

    def read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._position += len(line)
                self._tell(json.loads(line))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started, which is in its group."""
    with suppress(ProcessLookupError):  # it has ended, and left nothing
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(status: int, log: Path, begins_at: int) -> Ending:
    with log.open("rb") as file:
        file.seek(begins_at)
        last = file.read().decode(errors="replace").strip().splitlines()[-_TOLD_LINES:]
    missing = [line for line in last if line.startswith("ModuleNotFoundError: No module named ")]
    if missing:
        return Ending("skipped", how_to_get([distribution_of(missing[-1].split("'")[1])]))
    return Ending("failed", f"ended with status {status}: {' / '.join(last)}")
