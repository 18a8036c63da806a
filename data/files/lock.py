"""A file that one process at a time may write. The lock is the system's and dies with its owner."""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: two processes at one file are not noticed there
    fcntl = None  # type: ignore[assignment]


class FileInUseError(ValueError):
    """Another process holds the file."""


def lock_file(file: IO[Any], *, otherwise: str) -> None:
    """Locks an open file until it is closed.

    Args:
        file: open for writing.
        otherwise: what the user can do if another process holds it.

    Raises:
        FileInUseError: if another process does.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileInUseError(f"{file.name} is being written by another process: wait for it, or {otherwise}") from error
