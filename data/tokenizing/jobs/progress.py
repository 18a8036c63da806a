"""What people see of a job: shards and hours done, speed, and when it will end."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0  # where no terminal shows a bar
logger = logging.getLogger(__name__)


class Progress:
    """A bar on a terminal, and else a line a minute.

    Args:
        num_shards: of the job, or of the part that is done here.
        num_done: before this run.
        is_shown: whether anything is.
    """

    def __init__(self, num_shards: int, num_done: int, is_shown: bool) -> None:
        self._num_shards, self._num_done, self._num_before = num_shards, num_done, num_done
        self._seconds = 0.0  # of audio, by this run
        self._started = self._told = time.monotonic()
        self._is_shown = is_shown
        is_terminal = sys.stderr.isatty()
        self._has_lines = is_shown and not is_terminal
        self._bar = tqdm(total=num_shards, initial=num_done, unit="shard", disable=not is_shown or not is_terminal)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, seconds: float) -> None:
        """Counts a shard of so many seconds of audio."""
        self._num_done += 1
        self._seconds += seconds
        self._bar.update()
        self._bar.set_postfix_str(f"{self._seconds / 3600:.1f} h of audio, {self.speed:.0f} x realtime")
        if self._has_lines and time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            logger.info("%s", self)

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self._seconds / max(1e-9, time.monotonic() - self._started)

    def __str__(self) -> str:
        done = self._num_done - self._num_before
        left = (time.monotonic() - self._started) / max(1, done) * (self._num_shards - self._num_done)
        return (
            f"{self._num_done} of {self._num_shards} shards, {self._seconds / 3600:.1f} h of audio by this run, "
            f"{self.speed:.0f} x realtime, about {left / 3600:.1f} h left"
        )
