"""Whose turn it is to compute: of many sounds a few at a time, and first the one that has the least so far."""

from __future__ import annotations

import heapq
import threading
from itertools import count


class Turns:
    """Lets a few threads compute at once; of those that wait, the one that has been given least goes first.

    Threads that compute all at once share the cores and finish late, all of them; and whoever waits for a first sound
    would stand behind those that hear theirs already.

    Args:
        at_once: how many compute at once.
    """

    def __init__(self, at_once: int) -> None:
        if at_once < 1:
            raise ValueError(f"at_once={at_once}: use 1 or more")
        self._num_free = at_once
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._numbers = count()

    def take(self, given: float) -> None:
        """Waits for a turn.

        Args:
            given: how much the thread's sound has got so far.
        """
        with self._lock:
            if self._num_free:
                self._num_free -= 1
                return
            called = threading.Event()
            heapq.heappush(self._waiting, (given, next(self._numbers), called))
        called.wait()

    def leave(self) -> None:
        """Ends a turn, which goes on to the next."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._num_free += 1
