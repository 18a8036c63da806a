"""Where exported models go: into a new folder, and never into the one they are made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.lock import holds_nothing


@contextmanager
def new_folder(output: str | os.PathLike[str], source: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder that becomes the output when the block ends well.

    Args:
        output: where the exported model goes; must not exist or be empty.
        source: folder or Hub id of what is exported.
    """
    check_output(output, source)
    with atomic_folder(output) as staging:
        yield staging


def check_output(output: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Refuses an output that holds something, or that lies in the model itself.

    Raises:
        ValueError: naming the output.
    """
    output, folder = Path(output), Path(source)
    if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
        where = "is the model itself" if output.resolve() == folder.resolve() else f"lies inside the model {folder}"
        raise ValueError(f"{output} {where}: name a folder outside it")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; a folder is written: name a new one")
    if not holds_nothing(output):
        raise ValueError(f"{output} is not empty; name a new folder for the exported model")
