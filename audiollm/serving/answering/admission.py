"""How many requests may be here at once: more are turned away at the door, with a word on when to come again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_REMEMBERED = 32  # answers, from whose times the wait is estimated
_LEAST_SECONDS, _MOST_SECONDS = 1, 120


class BusyError(RuntimeError):
    """As many requests as there may be are here already.

    Attributes:
        retry_after_seconds: when a place may be free, a whole number.
    """

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Admission:
    """Counts those that are computed and those that wait.

    Args:
        max_running: how many the engine computes at once.
        max_waiting: how many may wait beside them.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        if max_running < 1 or max_waiting < 0:
            raise ValueError(f"max_running={max_running}, max_waiting={max_waiting}: use 1 or more, and 0 or more")
        self.max_running, self.max_waiting = max_running, max_waiting
        self.num_inside = 0
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def num_waiting(self) -> int:
        """Those beyond the number that is computed at once."""
        return max(0, self.num_inside - self.max_running)

    def check_free(self) -> None:
        """Looks for a place without taking it, before work that a request without one would only waste.

        Raises:
            BusyError: if none is free.
        """
        if self.num_inside >= self.max_running + self.max_waiting:
            raise BusyError(
                f"{self.num_inside} requests are being answered or wait, which is as many as this server takes: try "
                "again later",
                self._retry_after(),
            )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place for the time of the block.

        Raises:
            BusyError: if none is free.
        """
        self.check_free()
        self.num_inside += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.num_inside -= 1
            self._seconds.append(time.monotonic() - started)

    def _retry_after(self) -> int:
        """Until one of those that run has probably gone."""
        usual = sum(self._seconds) / len(self._seconds) if self._seconds else _LEAST_SECONDS
        return int(min(max(usual / self.max_running, _LEAST_SECONDS), _MOST_SECONDS))
