"""Stops a run whose loss or gradient is no longer a number, and writes down which records the update was made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from audiollm.data.files.json_document import write_json

from .config import RunConfig
from .errors import NonFiniteLossError


def stop_unless_finite(
    accelerator: Accelerator,
    config: RunConfig,
    step: int,
    what: str,
    value: float,
    passes: Sequence[tuple[Sequence[str], float | Tensor]],
    *,
    unit: str = "clips",
) -> None:
    """Stops every process if a number that all of them share is NaN or infinite.

    Args:
        accelerator: the run's processes.
        config: the run.
        step: its update.
        what: name of the number.
        value: the number.
        passes: this process's passes: ids of their records, and loss of each.
        unit: what the records are called.

    Raises:
        NonFiniteLossError: naming the file that lists the records of the update.
    """
    if math.isfinite(value):
        return
    index = accelerator.process_index
    # As text: JSON knows neither NaN nor infinity.
    mine = [{"process": index, unit: list(ids), "loss": str(float(loss))} for ids, loss in passes]
    everyone = gather_object(mine)
    path = Path(config.output_dir) / f"non_finite_step_{step:06d}.json"
    if accelerator.is_main_process:
        write_json(path, {"step": step, "reason": f"{what} is {value}", "passes": everyone})
    suspects = [record for one in everyone if not math.isfinite(float(one["loss"])) for record in one[unit]]
    # All losses may be finite where a gradient is not: then any record of the update may be the cause.
    suspects = suspects or [record for one in everyone for record in one[unit]]
    named = ", ".join(suspects[:8]) + (" …" if len(suspects) > 8 else "")
    raise NonFiniteLossError(
        f"update {step}: {what} is {value}; its {unit} are {named} ({path} lists all). Look at them, lower "
        "learning_rate, or set max_grad_norm; the last checkpoint is from before this update"
    )
