"""Learning-rate schedule, and when something is due: pure functions of the update's number, with nothing to save.

A scheduler object that ``accelerate`` has prepared advances once per *process* at each update; a pure function
of the update cannot be stepped too often, and a resumed run needs only the number.
"""

from __future__ import annotations

import math

from .config import RunConfig, ScheduleName

_DECAY_RATIO = 0.2  # of the updates, unless the config says another


def scheduled_learning_rate(
    config: RunConfig, step: int, total_steps: int, peak: float, warmup_steps: int | None = None
) -> float:
    """The learning rate of an update as a run's config has it; see `learning_rate_at`."""
    return learning_rate_at(
        step,
        total_steps=total_steps,
        peak=peak,
        warmup_ratio=config.warmup_ratio,
        warmup_steps=warmup_steps,
        min_ratio=config.min_learning_rate_ratio,
        schedule=config.schedule,
        decay_ratio=_DECAY_RATIO if config.decay_ratio is None else config.decay_ratio,
    )


def learning_rate_at(
    step: int,
    *,
    total_steps: int,
    peak: float,
    warmup_ratio: float,
    min_ratio: float,
    warmup_steps: int | None = None,
    schedule: ScheduleName = "cosine",
    decay_ratio: float = _DECAY_RATIO,
) -> float:
    """Linear warm-up, then from ``peak`` to ``peak * min_ratio`` as the schedule has it.

    Args:
        step: the update about to be made, 1 … ``total_steps``.
        total_steps: updates of the whole run.
        peak: learning rate at the end of the warm-up.
        warmup_ratio: share of the updates in the warm-up, in [0, 1].
        min_ratio: learning rate of the last update over the peak, in [0, 1]; ``constant`` has none.
        warmup_steps: updates in the warm-up; takes the place of ``warmup_ratio``.
        schedule: what follows the warm-up.
        decay_ratio: share of the updates in which ``warmup_stable_decay`` goes down; at most what the warm-up leaves.

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
    if schedule == "constant":
        return peak
    if schedule == "warmup_stable_decay":
        decay_steps = min(math.ceil(decay_ratio * total_steps), total_steps - warmup_steps)
        progress = max(0.0, 1 - (total_steps - step) / decay_steps)
    else:
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if schedule == "cosine":
        return peak * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))
    return peak * (min_ratio + (1 - min_ratio) * (1 - progress))


def is_due(every: int | None, step: int, total_steps: int) -> bool:
    """Whether something that is done every so many updates, and after the last one, is done after this one."""
    return step == total_steps or (every is not None and step % every == 0)
