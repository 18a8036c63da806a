"""Files that are either the old one or the new one, never half of each."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Opens a file that takes the place of ``path`` when the block ends well.

    What is written goes to a hidden file beside ``path``, is flushed to the disk, and is renamed in one step. If the
    block raises or the process is killed, ``path`` stays as it was.

    Args:
        path: the file to write or replace; its folder must exist. A link is followed.
        mode: "w" for text (UTF-8, ``\\n`` line ends), "wb" for bytes.

    Raises:
        ValueError: another mode.
        OSError: the folder does not exist or the disk is full.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f'mode={mode!r}: use "w" or "wb"; a file is always written whole')
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    text = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    try:
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flushes a folder's list of files to the disk, so that a rename in it survives a power cut."""
    if os.name != "posix":
        return  # only POSIX opens folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
