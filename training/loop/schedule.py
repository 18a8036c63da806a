"""Learning-rate schedule, and when something is due: pure functions of the update's number, with nothing to save.

A scheduler object that ``accelerate`` has prepared advances once per *process* at each update; a pure function
of the update cannot be stepped too often, and a resumed run needs only the number.
"""

from __future__ import annotations

import math


def learning_rate_at(
    step: int,
    *,
    total_steps: int,
    peak: float,
    warmup_ratio: float,
    min_ratio: float,
    warmup_steps: int | None = None,
) -> float:
    """Linear warm-up, then a cosine from ``peak`` to ``peak * min_ratio``.

    Args:
        step: the update about to be made, 1 … ``total_steps``.
        total_steps: updates of the whole run.
        peak: learning rate at the end of the warm-up.
        warmup_ratio: share of the updates in the warm-up, in [0, 1].
        min_ratio: learning rate of the last update over the peak, in [0, 1].
        warmup_steps: updates in the warm-up; takes the place of ``warmup_ratio``.

    Returns:
        The learning rate of this update. Update ``w`` of a warm-up of ``W`` updates gets ``peak * w / W``, so that the
        first one already learns.
    """
    if not 1 <= step <= total_steps:
        raise ValueError(f"step={step} is outside the run's updates 1 … {total_steps}")
    if warmup_steps is None:
        warmup_steps = math.ceil(warmup_ratio * total_steps)
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def is_due(every: int | None, step: int, total_steps: int) -> bool:
    """Whether something that is done every so many updates, and after the last one, is done after this one."""
    return step == total_steps or (every is not None and step % every == 0)
