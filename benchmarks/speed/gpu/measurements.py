"""The measurements of a section: each is written down at once, and none that goes wrong ends the others."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from audiollm.environment import find_device

from .plan import distribution_of, how_to_get

_GIB = 2**30

Figures = dict[str, Any]
"""What a measurement gives; ``told`` says it in a line of the table."""


@dataclass(frozen=True)
class SectionSettings:
    """What a section is told.

    Attributes:
        results: file of JSON lines, which is added to.
        ends_at: when the section's time is over, in seconds since 1970.
        smoke: try everything out in a tiny size.
        device: of torch; None for the first GPU.
        gflops: billions of operations per second in matrix products, by number format, where they are known.
        peak_gflops: the same by the device's data sheet, in bfloat16; None if it is not known.
        arguments: of this section.
    """

    results: str
    ends_at: float
    smoke: bool = False
    device: str | None = None
    gflops: dict[str, float] = field(default_factory=dict)
    peak_gflops: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


class Measurements:
    """Makes measurements one after the other, and writes each down.

    Args:
        settings: of the section.

    Attributes:
        settings: the same.
        device: where things are to run.
    """

    def __init__(self, settings: SectionSettings) -> None:
        self.settings = settings
        self.device = torch.device(find_device(settings.device))
        torch.zeros((), device=self.device)  # starts the device: its memory cannot be asked about before

    def announce(self, names: Iterable[str]) -> None:
        """Says what will be measured, so that it is known what is missing if the time is over."""
        self._write({"planned": list(names)})

    def make(self, name: str, function: Callable[[], Figures]) -> Figures | None:
        """Makes a measurement, unless the section's time is over.

        What does not fit into the memory, or fails, is a result, too: the reason is written down, and the traceback is
        in the log.

        Returns:
            The figures; None where there are none.
        """
        if time.time() >= self.settings.ends_at:
            self.leave_out(name, "not run", "the section's time was over")
            return None
        self._forget()
        started = time.time()
        figures: Figures | None = None
        outcome: dict[str, Any] = {"status": "done"}
        try:
            figures = function()
        except (torch.OutOfMemoryError, MemoryError) as error:
            outcome = {"status": "does not fit", "reason": _first_line(error)}
        except ModuleNotFoundError as error:
            outcome = {"status": "skipped", "reason": how_to_get([distribution_of(error.name or str(error))])}
        except Exception as error:
            traceback.print_exc()
            outcome = {"status": "failed", "reason": f"{type(error).__name__}: {_first_line(error)}"}
        if figures is not None:
            outcome |= {"told": figures.get("told", ""), "figures": {k: v for k, v in figures.items() if k != "told"}}
        self._write({"name": name, "seconds": time.time() - started, "peak_gib": self._peak() / _GIB} | outcome)
        return figures

    def leave_out(self, name: str, status: str, reason: str) -> None:
        """Writes down why there is no such measurement; ``status`` is "skipped" or "not run"."""
        self._write({"name": name, "status": status, "reason": reason})

    def _write(self, line: dict[str, Any]) -> None:
        with open(self.settings.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _forget(self) -> None:
        """Frees what the measurement before has left, and begins to count anew."""
        gc.collect()
        if self.device.type != "cpu":
            memory = torch.get_device_module(self.device)
            memory.empty_cache()
            memory.reset_peak_memory_stats(self.device)

    def _peak(self) -> int:
        """Most bytes of the device since `_forget`; on a processor, of the process since its start."""
        if self.device.type != "cpu":
            return int(torch.get_device_module(self.device).max_memory_allocated(self.device))
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def run_section(measure: Callable[[Measurements], None]) -> None:
    """The program of a section: reads its settings from the JSON file that the command line names, and measures."""
    measure(Measurements(SectionSettings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
