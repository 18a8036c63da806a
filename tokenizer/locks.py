"""Locks: between threads, for objects that are copied, pickled and forked; between processes, for folders."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl

_STAGING_NAME = re.compile(r"\..*\.[0-9a-f]{8}-[0-9a-f]{8}\.tmp")  # a folder that is filled before it gets its name


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


@contextmanager
def held_folder(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds a folder, also when it is renamed; the lock is the system's and dies with its owner.

    Process numbers would not do: containers that share a disk may share a host name, and count processes apart.

    Yields:
        Whether it is held: some systems lock no folders.

    Raises:
        BlockingIOError: another process holds it, or this one does already.
        FileNotFoundError: it is gone.
    """
    if sys.platform == "win32":
        yield False
        return
    descriptor, process = os.open(folder, os.O_RDONLY), os.getpid()
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            is_held = False
        else:
            is_held = True
        yield is_held
    finally:
        if os.getpid() == process:  # a process forked meanwhile has the lock, too: closing would leave it with that one
            with suppress(OSError):  # of systems that lock no folders
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@contextmanager
def entries_held(folder: Path) -> Iterator[None]:
    """Keeps other processes from putting entries into a folder at the same time: theirs must not mix with ours."""
    if _STAGING_NAME.fullmatch(folder.name):  # ours alone, and held already by the block that made it
        yield
        return
    with held_folder(folder, wait=True):
        yield
