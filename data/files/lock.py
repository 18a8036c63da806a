"""Files and folders that one process at a time may write. The lock is the system's and dies with its owner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER_LOCK_NAME = ".lock"


class FileInUseError(ValueError):
    """Another process holds the file or folder."""


@contextlib.contextmanager
def locked_file(path: str | os.PathLike[str], *, otherwise: str = "choose another output") -> Iterator[None]:
    """Holds a file while the block lasts, by ``.<name>.lock`` beside it; its folder must exist.

    Args:
        path: the file; it need not be there.
        otherwise: what the user can do if another process holds it.

    Raises:
        FileInUseError: another process holds it, or this one does already.
    """
    path = Path(path)
    with _locked(path.with_name(f".{path.name}.lock"), path, otherwise):
        yield


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike[str], *, otherwise: str = "choose another output") -> Iterator[None]:
    """Holds a folder while the block lasts, making it if needed.

    Args:
        folder: the folder.
        otherwise: what the user can do if another process holds it.

    Raises:
        FileInUseError: another process holds it, or this one does already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / FOLDER_LOCK_NAME, folder, otherwise):
        yield


@contextlib.contextmanager
def _locked(lock_path: Path, held: Path, otherwise: str) -> Iterator[None]:
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError) as error:  # RuntimeError: filelock's word for a lock that this thread holds already
        raise FileInUseError(f"{held} is being written by another process: wait for it, or {otherwise}") from error
    try:
        yield
    finally:
        # Before the release: once it is free, another process may hold the same file. One that had opened it already
        # finds it without a name when it gets the lock, and does not take that for a lock.
        with contextlib.suppress(OSError):  # Windows removes no open file; there the release does
            lock_path.unlink()
        lock.release()
