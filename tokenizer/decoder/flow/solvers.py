"""Ways from noise to mel: at which times a learned velocity is asked for, and what is made of the answers.

The cost of decoding is the number of evaluations of the network, so every solver is compared, and set, by that number.
Of a path that was learned as a straight line from noise to mel, each solver assumes something else between two times:

- ``euler``: a constant velocity. The published decoder.
- ``midpoint``, ``heun``: what a second evaluation within the step corrects (two evaluations a step).
- ``multistep``: a velocity that goes on changing as it did over the step before (Adams-Bashforth).
- ``dpm``: the same of the mel that the network has in mind, x + (1 - t) v, which changes more slowly than the velocity;
  the rest of the way is integrated exactly (as in DPM-Solver++, Lu et al., 2022, arXiv:2211.01095, with time in
  place of the logarithm of the signal-to-noise ratio, so that nothing is infinite at either end).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

Solver = Literal["euler", "midpoint", "heun", "multistep", "dpm"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)
MOST_GUIDANCE = 100
"""Beyond, sound is noise; far beyond, numbers overflow."""
Velocity = Callable[[Tensor, Tensor], Tensor]
"""From a point ``[B, C, M]`` and a time, a scalar in [0, 1], to the velocity ``[B, C, M]``."""


@dataclass(frozen=True)
class Integration:
    """How the flow is integrated.

    Args:
        evaluations: of the network, per row.
        guidance: strength of classifier-free guidance; 0: none, at half the cost.
        solver: see the module.
        sway: how far times are drawn towards the noise (Chen et al., 2024, arXiv:2410.06885): -1 is the cosine
            schedule of the published decoder, 0 even steps.
        guided_until: guidance is for the times before this one (Kynkäänniemi et al., 2024, arXiv:2404.07724); 1: all.

    Raises:
        ValueError: for a value that makes no sense, or a number of evaluations that the solver cannot divide.
    """

    evaluations: int
    guidance: float
    solver: Solver = "euler"
    sway: float = -1.0
    guided_until: float = 1.0

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"solver={self.solver!r} is unknown: use one of {', '.join(SOLVERS)}")
        is_number = isinstance(self.evaluations, int) and not isinstance(self.evaluations, bool)
        if not is_number or self.evaluations < 1:
            raise ValueError(f"steps={self.evaluations}: use a whole number of at least 1, such as 10")
        if self.evaluations % self.evaluations_per_step:
            raise ValueError(
                f"steps={self.evaluations}: the solver {self.solver} evaluates the network "
                f"{self.evaluations_per_step} times a step; use a multiple of that, or solver='multistep'"
            )
        is_strength = isinstance(self.guidance, (int, float)) and not isinstance(self.guidance, bool)
        if not is_strength or not 0 <= self.guidance <= MOST_GUIDANCE:
            raise ValueError(
                f"guidance={self.guidance!r}: use 0 (off) or a positive number up to {MOST_GUIDANCE}, such as 0.7"
            )
        if not -1 <= self.sway <= 1:
            raise ValueError(f"sway={self.sway}: use a number from -1 (short steps first) to 1 (long steps first)")
        if not 0 <= self.guided_until <= 1:
            raise ValueError(f"guided_until={self.guided_until}: use a time from 0 (noise) to 1 (mel)")

    @property
    def evaluations_per_step(self) -> int:
        """How often the solver asks for the velocity in a step."""
        return 2 if self.solver in ("midpoint", "heun") else 1

    def times(self, device: torch.device) -> Tensor:
        """The ends of all steps, from 0 to 1, float32 ``[steps + 1]``."""
        even = torch.linspace(0, 1, self.evaluations // self.evaluations_per_step + 1, device=device)
        return sway(even, self.sway)

    def is_guided(self, t: Tensor) -> bool:
        """Whether the velocity at a time, a scalar, is a guided one."""
        # The time itself is looked at only where it decides: on a GPU that waits for all that is under way.
        return self.guidance > 0 and (self.guided_until == 1 or float(t) < self.guided_until)

    def solve(self, start: Tensor, velocity: Velocity) -> Tensor:
        """Integrates from time 0 to 1.

        Args:
            start: ``[B, C, M]``.
            velocity: is asked as often as `evaluations` says.

        Returns:
            Where the flow ends, ``[B, C, M]``.
        """
        return _STEPPERS[self.solver](start, self.times(start.device), velocity)


def sway(t: Tensor, strength: float) -> Tensor:
    """Draws times in [0, 1] towards 0 (negative strengths) or 1; 0 and 1 stay where they are."""
    if strength == -1:
        return 1 - torch.cos(t * 0.5 * torch.pi)  # the published schedule, to the last bit
    return t + strength * (torch.cos(t * 0.5 * torch.pi) - 1 + t) if strength else t


def _euler(x: Tensor, times: Tensor, velocity: Velocity) -> Tensor:
    t = times[0]
    for end in times[1:]:
        dt = end - t
        x = x + dt * velocity(x, t)
        t = t + dt  # summed up, as the released decoder does: the end may differ in the last digit
    return x


def _midpoint(x: Tensor, times: Tensor, velocity: Velocity) -> Tensor:
    for t, dt in zip(times, times.diff(), strict=False):
        x = x + dt * velocity(x + 0.5 * dt * velocity(x, t), t + 0.5 * dt)
    return x


def _heun(x: Tensor, times: Tensor, velocity: Velocity) -> Tensor:
    for t, dt in zip(times, times.diff(), strict=False):
        at_start = velocity(x, t)
        x = x + 0.5 * dt * (at_start + velocity(x + dt * at_start, t + dt))
    return x


def _multistep(x: Tensor, times: Tensor, velocity: Velocity) -> Tensor:
    before: Tensor | None = None
    steps = times.diff()
    for index, (t, dt) in enumerate(zip(times, steps, strict=False)):
        now = velocity(x, t)
        slope = 0 if before is None else (now - before) / steps[index - 1]
        x = x + dt * (now + 0.5 * dt * slope)
        before = now
    return x


def _dpm(x: Tensor, times: Tensor, velocity: Velocity) -> Tensor:
    before: Tensor | None = None
    for index, (t, end) in enumerate(pairwise(times)):
        now = x + (1 - t) * velocity(x, t)  # the mel that the network has in mind
        slope = 0 if before is None else (now - before) / (t - times[index - 1])
        # dx/dt = (mel(t) - x) / (1 - t), solved for a mel that changes by ``slope``; in closed form.
        left = (1 - end).clamp(min=0)
        kept = left / (1 - t)
        bend = (end - t) + torch.xlogy(left, kept)
        x = kept * x + (1 - kept) * now + bend * slope
        before = now
    return x


_STEPPERS: dict[Solver, Callable[[Tensor, Tensor, Velocity], Tensor]] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
    "multistep": _multistep,
    "dpm": _dpm,
}
