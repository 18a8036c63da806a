"""Reads what comes next in another thread while the caller works on what it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Prefetched(Generic[Batch]):
    """Iterates over ``(step, read(step))``, one batch ahead.

    Args:
        read: called in another thread, for one step at a time. What it raises is raised where its batch would come.
        steps: in their order.
    """

    def __init__(self, read: Callable[[int], Batch], steps: Iterable[int]) -> None:
        self._read = read
        self._steps = steps
        self._upcoming: Future[Batch] | None = None

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        # One thread, one batch ahead: more would hold more audio in memory, and readers are not safe among each other.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch") as reader:
            waiting: tuple[int, Future[Batch]] | None = None
            for step in self._steps:
                self._upcoming = reader.submit(self._read, step)
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = step, self._upcoming
            if waiting is not None:
                yield waiting[0], waiting[1].result()

    def settle(self) -> None:
        """Waits until nothing is being read, for a caller that needs what reading uses: a text tokenizer, say."""
        if self._upcoming is not None:
            wait([self._upcoming])
