"""Which file figures were computed from, as results say it: its name and the hash of its bytes."""

from __future__ import annotations

import os
from pathlib import Path

from audiollm.data.files.hashing import file_sha256


def file_identity(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """What the field ``predictions`` of a result holds.

    Args:
        path: of the file; it must exist.
        folder: of the result, if the file is below it: then the name is relative to it.
    """
    name = Path(path).name if folder is None else Path(path).relative_to(folder).as_posix()
    return {"file": name, "sha256": file_sha256(path)}
