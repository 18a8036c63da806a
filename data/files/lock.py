"""Files and folders that one process at a time may write. The lock is the system's and dies with its owner.

The hidden file that is locked stays: if its owner removed it, one who had opened it just before would hold a file
without a name, and a third one a new file of that name.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .json_document import write_json

FOLDER_LOCK_NAME = ".lock"
_OWNER = ".owner.lock"  # beside the lock itself, which holds no text
# Some versions of filelock remove the file on release. Who had opened it just before has to try again.
_PATIENCE_SECONDS = 0.2
_PAUSE_SECONDS = 0.02


class FileInUseError(ValueError):
    """Another process holds the file or folder."""


class UnwritableError(OSError):
    """Nothing can be written there."""


@contextlib.contextmanager
def locked_file(path: str | os.PathLike[str], *, otherwise: str = "choose another output") -> Iterator[None]:
    """Holds a file while the block lasts, by ``.<name>.lock`` beside it; its folder must exist.

    Args:
        path: the file; it need not be there.
        otherwise: what the user can do if another process holds it.

    Raises:
        FileInUseError: another process holds it, or this one does already.
        UnwritableError: its folder holds no new file.
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
        UnwritableError: it cannot be made, or holds no new file.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with _locked(folder / FOLDER_LOCK_NAME, folder, otherwise):
        yield


@contextlib.contextmanager
def held_run_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the folder of a run while the block lasts, so that no second run writes into it.

    The lock lies beside the folder: one that a run never came to write into stays as it was.

    Raises:
        FileInUseError: another run is at work there; the message names its process.
        UnwritableError: the folder's parent cannot be written.
    """
    folder = Path(folder).resolve()
    owner = folder.with_name(f".{folder.name}{_OWNER}")
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_file(folder))
        except FileInUseError as error:
            raise FileInUseError(
                f"{folder} is in use by another run ({_owner_in(owner)}): wait for it, stop it, or choose another "
                "output_dir"
            ) from error
        except UnwritableError:
            raise
        except OSError as error:
            raise _unwritable(folder, error) from error
        write_json(owner, {"process": os.getpid(), "host": platform.node()})
        stack.callback(owner.unlink, missing_ok=True)
        yield


def _owner_in(path: Path) -> str:
    """Who holds a folder, for people; only the lock itself decides."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not known"


@contextlib.contextmanager
def _locked(lock_path: Path, held: Path, otherwise: str) -> Iterator[None]:
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=_PAUSE_SECONDS)
    except (Timeout, RuntimeError) as error:  # RuntimeError: filelock's word for a lock that this thread holds already
        _refuse_unwritable(lock_path, held)
        raise FileInUseError(f"{held} is being written by another process: wait for it, or {otherwise}") from error
    except OSError as error:
        raise _unwritable(held, error) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_unwritable(lock_path: Path, held: Path) -> None:
    """Tells a lock that is held from one that cannot be made: filelock waits for both, in folders such as ``/proc``.

    Raises:
        UnwritableError: it cannot be made.
    """
    try:
        os.close(os.open(lock_path, os.O_CREAT | os.O_RDWR, 0o644))
    except OSError as error:
        raise _unwritable(held, error) from error


def _unwritable(held: Path, error: OSError) -> UnwritableError:
    return UnwritableError(f"{held} cannot be written: {(error.strerror or str(error)).lower()}; choose another place")


def holds_nothing(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is not there, or holds at most the files by which it and what was in it were held."""
    folder = Path(folder)
    return not folder.exists() or all(_is_lock(entry.name) for entry in folder.iterdir())


def _is_lock(name: str) -> bool:
    return name.startswith(".") and name.endswith(FOLDER_LOCK_NAME)
