"""Trainings of an experiment, each of them once: what is complete is kept, what was stopped goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.program import ProgramError
from audiollm.training.loop.record import METRICS_NAME, read_metrics

from .launching import launch_trainer


class KeptTrainings:
    """The trainings in a folder; each is a cell, which holds what it was made from.

    Args:
        folder: of the experiment.
        num_threads: CPU threads of a training; None: all.
    """

    def __init__(self, folder: Path, num_threads: int | None) -> None:
        self.folder = folder
        self._num_threads = num_threads
        self._cells = Cells(folder)

    def once(
        self,
        cell: Cell,
        identity: Mapping[str, Any],
        run: Path,
        script: str,
        config: str,
        flags: Callable[[], Sequence[str]],
    ) -> Path:
        """Trains, unless it is done; goes on from the last checkpoint if there is one.

        Args:
            cell: says that it is done.
            identity: what decides the outcome.
            run: its folder.
            script: file of ``training/``.
            config: file of ``training/configs/``.
            flags: what goes before the file's settings, but for folder and resuming; made only for a training that is
                not done, as they may ask for others.

        Returns:
            The run's folder.

        Raises:
            ValueError: it was made from something else.
            ProgramError: it fails; the message names its log.
        """

        def train() -> dict[str, Any]:
            self._train(run, script, config, flags())
            return {"run": str(run.relative_to(self.folder))}

        self._cells.computed(cell, identity, train)
        # Only now, as without them a training that nobody knows to be complete could not be gone on with.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return run

    def _train(self, run: Path, script: str, config: str, flags: Sequence[str]) -> None:
        log = run.parent / f"{run.name}.log"
        flags = [*flags, "--resume", "latest", "--output_dir", str(run)]
        try:
            launch_trainer(script, config, *flags, num_threads=self._num_threads, log=log)
        except subprocess.CalledProcessError as error:
            raise ProgramError(
                f"training in {run} failed with exit status {error.returncode}; why is in {log}"
            ) from error


def last_evaluation(run: Path) -> dict[str, Any]:
    """Figures of the last evaluation of a run, without where it was."""
    line = [one for one in read_metrics(run / METRICS_NAME) if one["event"] == "eval"][-1]
    return {name: value for name, value in line.items() if name not in ("event", "step")}
