"""One run at a time on an output folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from audiollm.data.files.lock import lock_file

LOCK_NAME = ".lock"


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds a folder while the block lasts, making it if needed. The lock is the system's and dies with its owner.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK_NAME, "ab") as file:
        lock_file(file, otherwise="choose another output")
        yield
