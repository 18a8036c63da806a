"""Units done in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from .plan import Unit
from .work import UnitResult
from .worker import UNITS_AT_ONCE, UnitWorker


class ThisProcess:
    """Does units in threads of this process.

    Args:
        worker: does them.
    """

    num_workers = 1

    def __init__(self, worker: UnitWorker) -> None:
        self._worker = worker

    def run(self, units: Sequence[Unit]) -> Generator[UnitResult, None, None]:
        """Yields what becomes of each unit, as they end."""
        self._worker.go_on()
        waiting = iter(units)
        running: set[Future[UnitResult]] = set()
        with ThreadPoolExecutor(UNITS_AT_ONCE, thread_name_prefix="unit") as pool:
            try:
                while True:
                    while len(running) < UNITS_AT_ONCE and (unit := next(waiting, None)) is not None:
                        running.add(pool.submit(self._worker, unit))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            finally:
                self._worker.stop()
