"""The endless order of one source: its files shuffled, and the records of a window of them; a place is a few numbers.

An epoch takes the files in a permutation, the blocks of each in another, and cuts what follows into windows of some
thousand records, each shuffled by itself. All of it follows from the seed, so that the state is the place where the
window begins and how much of it has been taken; going on needs that window's blocks and nothing before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from audiollm.data.manifest import RecordError
from audiollm.data.sampling import seed_of

from .shards import Block, Shard


class Place(NamedTuple):
    """Where a record of a mixture is, and in which pass it comes."""

    source: int
    epoch: int
    shard: int
    block: int
    row: int


class _Cursor(NamedTuple):
    """A place in an epoch's order: position among its shards, among the shard's blocks, and row."""

    shard: int
    block: int
    row: int


_FIRST = _Cursor(0, 0, 0)


class ShuffledSource:
    """Draws the records of a source without end, or for some epochs.

    Args:
        shards: of the source.
        number: of the source in its mixture.
        seed: decides the order, together with the source's number.
        window: records that are shuffled among each other; of so many the blocks are kept in memory.
        epochs: passes after which it has run out; None: never.
        on_damage: is told of a shard, or a block of one, that cannot be read; if it does not raise, that is left out.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        number: int = 0,
        seed: int = 0,
        window: int = 10_000,
        epochs: int | None = None,
        on_damage: Callable[[RecordError], None],
    ) -> None:
        if window < 1:
            raise ValueError(f"window={window}: use 1 (no shuffling within files) or more")
        self.shards = shards
        self._number, self._seed, self._window_size = number, seed, window
        self._epochs, self._on_damage = epochs, on_damage
        self.max_records: int | None = None
        """Records after which it has run out; None: there is no such limit."""
        self._window: list[Place] | None = None  # not listed yet
        self._go_to(0, _FIRST)
        self._end = _FIRST
        self._drawn = 0
        self._blocks = _RecentBlocks(shards)

    @property
    def has_run_out(self) -> bool:
        """Whether all of its epochs, or as many records as were wanted, have been drawn."""
        epochs_are_over = self._epochs is not None and self._epoch >= self._epochs
        return epochs_are_over or (self.max_records is not None and self._drawn >= self.max_records)

    def next(self) -> Place | None:
        """The place of the next record; None: the source has run out.

        Raises:
            RecordError: a whole epoch holds nothing.
        """
        if self.has_run_out:
            return None
        while self._taken == len(window := self._current_window()):
            if window:
                self._go_to(self._epoch, self._end)
            elif self._start == _FIRST:
                raise RecordError(self.shards[0].name, "holds no records")
            else:
                self._go_to(self._epoch + 1, _FIRST)
                if self.has_run_out:
                    return None
        self._taken += 1
        self._drawn += 1
        return window[self._taken - 1]

    def record(self, place: Place) -> tuple[Any, str, str | None]:
        """A record, what messages call its place, and the folder that its paths start from.

        Raises:
            RecordError: if it cannot be read.
        """
        block = self._blocks.get(place.shard, place.block)
        return block.record(place.row), block.where(place.row), self.shards[place.shard].base_dir

    def where(self, place: Place) -> str:
        """What messages call a record's place.

        Raises:
            RecordError: if its block cannot be read.
        """
        return self._blocks.get(place.shard, place.block).where(place.row)

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch, where the window begins in it, records taken of the window, and drawn ever."""
        return {"epoch": self._epoch, **self._start._asdict(), "taken": self._taken, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to a position that `state_dict` gave."""
        self._go_to(state["epoch"], _Cursor(state["shard"], state["block"], state["row"]))
        self._taken, self._drawn = state["taken"], state["drawn"]

    def _go_to(self, epoch: int, start: _Cursor) -> None:
        self._epoch, self._start, self._taken, self._window = epoch, start, 0, None

    def _current_window(self) -> list[Place]:
        if self._window is None:
            listed, self._end = self._list_window()
            order = self._permuted(len(listed), "window", *self._start)
            self._window = [listed[index] for index in order]
        return self._window

    def _list_window(self) -> tuple[list[Place], _Cursor]:
        """The next records of the epoch in the order of the files, and where those behind them begin."""
        places: list[Place] = []
        self._blocks.begin_window()
        shards = self._permuted(len(self.shards), "shards")
        position, block_position, row = self._start
        while position < len(shards):
            blocks = self._blocks_of(shards[position])
            while block_position < len(blocks):
                shard, block = shards[position], blocks[block_position]
                last = min(self._rows_of(shard, block), row + self._window_size - len(places))
                places += [Place(self._number, self._epoch, shard, block, one) for one in range(row, last)]
                if len(places) == self._window_size:
                    return places, _Cursor(position, block_position, last)
                block_position, row = block_position + 1, 0
            position, block_position = position + 1, 0
        return places, _Cursor(position, 0, 0)

    def _blocks_of(self, shard: int) -> list[int]:
        try:
            return self._permuted(self.shards[shard].num_blocks, "blocks", shard)
        except RecordError as error:
            self._on_damage(error)
            return []

    def _rows_of(self, shard: int, block: int) -> int:
        try:
            return len(self._blocks.get(shard, block))
        except RecordError as error:
            self._on_damage(error)
            return 0

    def _permuted(self, count: int, *what: object) -> list[int]:
        generator = np.random.default_rng(seed_of(self._seed, self._number, self._epoch, *what))
        return generator.permutation(count).tolist()


class _RecentBlocks:
    """The blocks of this window and of the one before, from which records come in any order."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._blocks: dict[tuple[int, int], Block] = {}
        self._before: dict[tuple[int, int], Block] = {}

    def begin_window(self) -> None:
        """Lets go of what was read for the window before the last one."""
        self._before, self._blocks = self._blocks, {}

    def get(self, shard: int, number: int) -> Block:
        """The block; it is read unless it is there.

        Raises:
            RecordError: if it is damaged.
        """
        key = (shard, number)
        if key not in self._blocks:
            self._blocks[key] = self._before[key] if key in self._before else self._shards[shard].block(number)
        return self._blocks[key]
