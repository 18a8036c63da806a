"""A lock for objects that are also copied, pickled, and taken along by forked processes."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class CopyableLock:
    """A re-entrant lock between threads. A copy of it, and what a forked process finds of it, is a new free one."""

    def __init__(self) -> None:
        self._free()

    def _free(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # the thread that held it at the fork doesn't exist here
            self._free()
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[CopyableLock], tuple[()]]:
        return CopyableLock, ()
