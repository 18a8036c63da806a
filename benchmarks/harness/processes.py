"""The processes that ``accelerate launch`` started together, as far as a benchmark needs to know of them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

_ValueT = TypeVar("_ValueT")
# Shares of one benchmark may differ by hours: waiting for the last one must not fail.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class LaunchedProcesses:
    """This process among those launched.

    Attributes:
        rank: of this process, from 0.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether it does what only one of them may do."""
        return self.rank == 0

    def wait(self) -> None:
        """Goes on when all have come here."""
        if self.world_size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def from_main(self, make: Callable[[], _ValueT]) -> _ValueT:
        """Has the main process do something, and all go on with what came of it, or stop with its error.

        Args:
            make: called in the main process alone; its value must be picklable.

        Raises:
            ValueError: whatever ValueError or OSError the main process met.
        """
        if self.world_size == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        shared: list[Any] = [None, None]  # value, problem
        if self.is_main:
            try:
                shared[0] = make()
            except (ValueError, OSError) as error:
                shared[1] = str(error)
        value, problem = broadcast_object_list(shared, from_process=0)
        if problem is not None:
            raise ValueError(problem)
        made: _ValueT = value
        return made


def launched_processes() -> LaunchedProcesses:
    """Finds the processes this one was launched with, and joins them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return LaunchedProcesses()
    import torch
    from accelerate import PartialState

    is_first = not PartialState._shared_state
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    if is_first:
        atexit.register(state.destroy_process_group)
    return LaunchedProcesses(state.process_index, state.num_processes)
