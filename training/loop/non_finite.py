"""Stops a run whose loss or gradient is no longer a number, and writes down which clips the update was made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object

from .record import NonFiniteLossError, write_json


class RunWithFolder(Protocol):
    """What is needed of a run."""

    @property
    def accelerator(self) -> Accelerator:
        """Its processes."""

    @property
    def config(self) -> Any:
        """Its settings, ``output_dir`` among them."""


def stop_unless_finite(
    run: RunWithFolder, step: int, what: str, value: float, passes: Sequence[tuple[Sequence[str], float]]
) -> None:
    """Stops every process if a number that all of them share is NaN or infinite.

    Args:
        run: the run.
        step: its update.
        what: name of the number.
        value: the number.
        passes: this process's passes: ids of their clips, and loss of each.

    Raises:
        NonFiniteLossError: naming the file that lists the clips of the update.
    """
    if math.isfinite(value):
        return
    index = run.accelerator.process_index
    mine = [{"process": index, "clips": list(ids), "loss": str(loss)} for ids, loss in passes]
    everyone = gather_object(mine)
    path = Path(run.config.output_dir) / f"non_finite_step_{step:06d}.json"
    if run.accelerator.is_main_process:
        write_json(path, {"step": step, "reason": f"{what} is {value}", "passes": everyone})
    suspects = [clip for one in everyone if not math.isfinite(float(one["loss"])) for clip in one["clips"]]
    suspects = suspects or [clip for one in everyone for clip in one["clips"]]
    named = ", ".join(suspects[:8]) + (" …" if len(suspects) > 8 else "")
    raise NonFiniteLossError(
        f"update {step}: {what} is {value}; its clips are {named} ({path} lists all). Look at them, lower "
        "learning_rate, or set max_grad_norm; the last checkpoint is from before this update"
    )
