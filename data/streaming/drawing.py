"""Several sources by weight: which source each record of a run comes from follows from the seed and its number.

Nothing here knows of processes. Each makes the same places and reads those of its own share, so that runs on other
numbers of processes train on the same updates.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from audiollm.data.sampling import share_of

from .shuffling import Place, ShuffledSource

logger = logging.getLogger(__name__)

_KEPT_STATES = 4  # updates that may have been read and not been made


class RanOutError(ValueError):
    """All sources of a mixture have run out before the run is over."""


class Draws:
    """The records of several sources, by weight, one after the other until all sources have run out.

    Args:
        sources: in an order that stays.
        names: what messages call them.
        weights: how often each is drawn, relative to the others; positive. Where one has run out, the others go on.
        seed: decides the draws.

    Attributes:
        count: records drawn so far.
    """

    def __init__(
        self, sources: Sequence[ShuffledSource], names: Sequence[str], weights: Sequence[float], *, seed: int
    ) -> None:
        self.sources, self.names = sources, names
        self._weights, self._seed = weights, seed
        self.count = 0
        self._over = [False] * len(sources)

    def next(self) -> Place | None:
        """The place of the next record; None: all sources have run out."""
        while not all(self._over):
            number = self._drawn_source()
            place = self.sources[number].next()
            if place is not None:
                self.count += 1
                return place
            self._over[number] = True
            logger.warning("%s has run out after %d records of the mixture", self.names[number], self.count)
        return None

    def state_dict(self) -> dict[str, Any]:
        """The position: how many were drawn, which sources have run out, and where each of them is."""
        sources = {name: source.state_dict() for source, name in zip(self.sources, self.names, strict=True)}
        return {"draws": self.count, "over": list(self._over), "sources": sources}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position that `state_dict` gave."""
        self.count, self._over = state["draws"], list(state["over"])
        for source, name in zip(self.sources, self.names, strict=True):
            source.load_state_dict(state["sources"][name])

    def _drawn_source(self) -> int:
        going_on = [number for number, is_over in enumerate(self._over) if not is_over]
        sums = list(accumulate(self._weights[number] for number in going_on))
        drawn = share_of(self._seed, "source", self.count) * sums[-1]
        return going_on[min(bisect_right(sums, drawn), len(going_on) - 1)]


class MixtureOrder:
    """The updates of a run over several sources, of so many records each, made one after the other.

    Args:
        draws: the records.
        global_batch_size: records of an update; fewer in the last one before all sources have run out.
        pass_size: records that count as one epoch of the whole, for `epoch`.
    """

    def __init__(self, draws: Draws, *, global_batch_size: int, pass_size: int) -> None:
        self._drawing, self._pass_size = draws, pass_size
        self.global_batch_size = global_batch_size
        self._step = 0
        self._states: dict[int, dict[str, Any]] = {0: self._state()}
        self._made = 0

    def batch(self, step: int) -> list[Place]:
        """The places of the records of update ``step``; updates come in their order.

        Raises:
            RanOutError: there is none left.
        """
        if step != self._step + 1:
            raise ValueError(f"update {step} was asked for after update {self._step}: they come in their order")
        places: list[Place] = []
        while len(places) < self.global_batch_size and (place := self._drawing.next()) is not None:
            places.append(place)
        if not places:
            raise ran_out(step)
        self._step = step
        self._states[step] = self._state()
        self._states.pop(step - _KEPT_STATES, None)
        return places

    def epoch(self, step: int) -> float:
        """Passes over the whole that are complete after update ``step``."""
        return step * self.global_batch_size / self._pass_size

    def made(self, step: int) -> None:
        """Says that update ``step`` has been made: it is behind that one that a checkpoint is to go on."""
        self._made = step

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last update that has been made."""
        return self._states[self._made]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position that `state_dict` gave."""
        self._step = self._made = state["step"]
        self._drawing.load_state_dict(state)
        self._states = {self._step: self._state()}

    def _state(self) -> dict[str, Any]:
        return {"step": self._step, **self._drawing.state_dict()}


def ran_out(step: int) -> RanOutError:
    """What is raised where there is no record left for an update."""
    return RanOutError(
        f"all sources of the mixture have run out before update {step}: raise their epochs or tokens, or make fewer "
        "updates (max_steps, num_epochs)"
    )
