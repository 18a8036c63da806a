"""Updates of as many records of a mixture as a number of tokens has room for, though no length is known beforehand.

Records are drawn in rounds, which are encoded while the model computes. Once the lengths of a round are known, updates
take the next records as long as they fit. Which records those are follows from the draws and the lengths alone, and not
from how large rounds are, how many processes encode them, or where a run was stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .drawing import Draws, ran_out
from .shuffling import Place

LEFT_OUT = 0
"""The length of a record that cannot be used: it is a part of its update, and takes no room."""


@dataclass(frozen=True)
class Round:
    """Records that are drawn, and encoded, together.

    Attributes:
        first: number of the first one among all draws.
        places: where they are; fewer than usual, or none, once all sources have run out.
    """

    first: int
    places: list[Place]


@dataclass(frozen=True)
class _Start:
    """A place from which draws can be made again."""

    draws: int
    state: dict[str, Any]


class TokenBudgetOrder:
    """The updates of a run over several sources, of so many tokens each, made one after the other.

    One thread may draw rounds while another one makes updates of those that have been drawn.

    Args:
        draws: the records.
        tokens_per_update: most tokens of an update; no record has more.
        round_size: records of a round.
        pass_size: records that count as one epoch of the whole, for `epoch`.
    """

    def __init__(self, draws: Draws, *, tokens_per_update: int, round_size: int, pass_size: int) -> None:
        self._drawing, self._pass_size = draws, pass_size
        self._budget, self._round_size = tokens_per_update, round_size
        self._starts: deque[_Start] = deque()
        self._lengths: deque[int] = deque()  # of draws that no update has taken
        self._is_over = False
        self._ends: dict[int, int] = {}  # draws by the end of each update
        self._step = self._made = 0
        self._begin(step=0)

    def draw_round(self) -> Round:
        """Draws the next records."""
        first = self._drawing.count
        self._starts.append(_Start(first, self._drawing.state_dict()))
        places: list[Place] = []
        while len(places) < self._round_size and (place := self._drawing.next()) is not None:
            places.append(place)
        return Round(first, places)

    def add_lengths(self, lengths: Sequence[int]) -> None:
        """Tells the tokens of the records of the next round, or `LEFT_OUT`; of rounds in the order they were drawn.

        Raises:
            ValueError: a record alone has more tokens than an update.
        """
        if lengths and max(lengths) > self._budget:
            raise ValueError(f"a record of {max(lengths)} tokens exceeds tokens_per_update={self._budget}")
        self._lengths.extend(lengths)
        self._is_over = not lengths

    def batch(self, step: int) -> range | None:
        """The numbers of the draws of update ``step``, or None: the lengths of another round are needed first.

        Raises:
            RanOutError: there is none left.
        """
        if step != self._step + 1:
            raise ValueError(f"update {step} was asked for after update {self._step}: they come in their order")
        num_taken, room = 0, self._budget
        for length in self._lengths:
            if length > room:
                break
            num_taken, room = num_taken + 1, room - length
        else:
            if not self._is_over:
                return None
        if not num_taken:
            raise ran_out(step)
        for _ in range(num_taken):
            self._lengths.popleft()
        start = self._ends[self._step]
        self._step, self._ends[step] = step, start + num_taken
        return range(start, start + num_taken)

    def epoch(self, step: int) -> float:
        """Passes over the whole that are complete after update ``step``, which is one of the last."""
        return self._ends[step] / self._pass_size

    def made(self, step: int) -> None:
        """Says that update ``step`` has been made: it is behind that one that a checkpoint is to go on."""
        self._made = step
        for earlier in [number for number in self._ends if number < step]:
            del self._ends[earlier]
        while len(self._starts) > 1 and self._starts[1].draws <= self._ends[step]:
            self._starts.popleft()

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last update that has been made: a start of a round, and draws taken since then."""
        start = self._starts[0]
        return {"step": self._made, "taken": self._ends[self._made] - start.draws, **start.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position that `state_dict` gave."""
        self._drawing.load_state_dict(state)
        for _ in range(state["taken"]):
            self._drawing.next()
        self._begin(step=state["step"])

    def _begin(self, step: int) -> None:
        self._step = self._made = step
        self._ends = {step: self._drawing.count}
        self._starts = deque([_Start(self._drawing.count, self._drawing.state_dict())])
        self._lengths.clear()
        self._is_over = False
