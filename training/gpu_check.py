"""Runs every test and benchmark that wants a GPU, within ten minutes: one JSON file and one table.

Its sections are processes of their own, most important first, each with its share of the time. A measurement is written
down as soon as it is made, so that nothing is lost if the program is killed; what is not installed, does not fit into
the memory or has no time left is named with the reason. ``--smoke`` tries all of it out on a processor, in a tiny size.
Needs torch and transformers; ``make gpu-check`` installs the rest. Example, on a machine without a network::

    PYTHONPATH=. python training/gpu_check.py --output_dir runs/gpu_check
"""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.speed.gpu.document import JSON_NAME, LOG_NAME, TABLE_NAME, CheckDocument
from audiollm.benchmarks.speed.gpu.plan import (
    LEAST_SECONDS,
    MACHINE,
    Section,
    chosen_sections,
    how_to_get,
    missing_packages,
    seconds_for,
)
from audiollm.benchmarks.speed.gpu.processes import run_process
from audiollm.data.files.replacing import refuse_existing

try:
    from audiollm.program import run_program
except ModuleNotFoundError:  # jsonargparse, on a machine that is lent with little more than torch
    from audiollm.benchmarks.speed.gpu.flags import run_program  # type: ignore[assignment]

_HEARTBEAT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class GpuCheckConfig:
    """One check of a machine."""

    output_dir: str = "runs/gpu_check"
    """Folder for gpu_check.json, gpu_check.md and gpu_check.log."""
    budget_seconds: float = 540.0
    """Time for all of it; sections for which none is left are named."""
    sections: tuple[str, ...] | None = None
    """Do only these: tests, encode, sft-0.5b, decode, sft-1.5b, generate. The machine's own figures always come."""
    smoke: bool = False
    """Try everything out in a tiny size, also without a GPU: the figures say nothing."""
    device: str | None = None
    """Torch device; the first GPU if not given."""
    overwrite: bool = False
    """Replace the result of an earlier check."""

    def __post_init__(self) -> None:
        chosen_sections(self.sections)
        if not LEAST_SECONDS <= self.budget_seconds < math.inf:
            raise ValueError(f"budget_seconds={self.budget_seconds:g}: use {LEAST_SECONDS:g} or more")


class _Check:
    """One run: what it has found, and the time that is left."""

    def __init__(self, config: GpuCheckConfig) -> None:
        self._config = config
        self._sections = chosen_sections(config.sections)
        self._folder = Path(config.output_dir)
        refuse_existing(self._folder / JSON_NAME, config.overwrite)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / LOG_NAME).unlink(missing_ok=True)
        self._document = CheckDocument(self._folder, dataclasses.asdict(config), self._sections)
        self._started, self._heard = time.monotonic(), time.monotonic()
        self._gflops: dict[str, float] = {}
        self._facts: dict[str, Any] | None = None

    def run(self) -> int:
        """Runs all sections; returns the exit status: 1 if something failed.

        Raises:
            ValueError: if there is no GPU.
        """
        for place, section in enumerate(self._sections):
            later = self._sections[place + 1 :]
            missing = missing_packages(section.needs)
            left = self._config.budget_seconds - self._seconds()
            if missing:
                self._end(section, "skipped", how_to_get(missing))
            elif left < LEAST_SECONDS and section is not MACHINE:  # which is first, and has all the time
                self._end(section, "not run", f"the {self._config.budget_seconds:.0f} s of the check were over")
            else:
                self._run(section, seconds_for(section, later, left))
            if section is MACHINE:
                self._require_gpu()
        self._document.complete()
        failures = self._document.failures()
        self._say(f"{len(failures)} failed: {'; '.join(failures)}" if failures else "nothing failed")
        self._say(f"written: {self._folder / JSON_NAME}, {self._folder / TABLE_NAME}, {self._folder / LOG_NAME}")
        sys.stdout.write(self._document.table())
        return 1 if failures else 0

    def _run(self, section: Section, seconds: float) -> None:
        self._document.begin(section, seconds)
        self._say(f"{section.name}: begins, has {seconds:.0f} s")
        settings = {
            "smoke": self._config.smoke,
            "device": self._config.device,
            "gflops": self._gflops,
            "peak_gflops": None if self._facts is None else self._facts["peak_gflops"],
        }
        began = self._seconds()
        ending = run_process(
            section,
            settings,
            seconds,
            self._folder / LOG_NAME,
            tell=lambda line: self._take(section, line),
            wait=lambda taken: self._beat(f"{section.name}: at work, {taken:.0f} of {seconds:.0f} s"),
        )
        self._end(section, ending.status, ending.reason, self._seconds() - began)

    def _take(self, section: Section, line: dict[str, Any]) -> None:
        self._document.add(section, line)
        if "name" not in line:
            return
        figures = line.get("figures", {})
        if section is MACHINE and "gflops" in figures:
            self._gflops[figures["format"]] = figures["gflops"]
        elif section is MACHINE and line["name"] == "facts" and figures:
            self._facts = figures
        told = line["told"] if line["status"] == "done" else f"{line['status']}: {line['reason']}"
        self._say(f"{section.name}: {line['name']}: {told}")

    def _end(self, section: Section, status: str, reason: str | None, seconds: float | None = None) -> None:
        self._document.end(section, status, reason, seconds)
        if status != "done":
            self._say(f"{section.name}: {status}: {reason}")

    def _require_gpu(self) -> None:
        """Raises ValueError where there is nothing to check: the other sections would only take time."""
        if self._facts is None:
            own = self._document.content["sections"][MACHINE.name]
            raise ValueError(
                f"nothing could be told of the machine ({own.get('reason')}): see {self._folder / LOG_NAME}"
            )
        if self._facts["device"] == "cpu" and not self._config.smoke:
            raise ValueError("there is no GPU here: --smoke tries the check out on the processor, in a tiny size")

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _beat(self, told: str) -> None:
        if time.monotonic() - self._heard > _HEARTBEAT_SECONDS:
            self._say(told)

    def _say(self, told: str) -> None:
        self._heard = time.monotonic()
        sys.stderr.write(f"{self._seconds():5.0f} s  {told}\n")
        sys.stderr.flush()


def run(config: GpuCheckConfig) -> int:
    """Checks the machine; returns the exit status."""
    # As Ctrl-C: the section that is at work ends, too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _Check(config).run()
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(run_program(GpuCheckConfig, run, level=logging.WARNING))
