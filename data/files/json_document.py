"""JSON files of one value: written in one step, in the project's one format."""

from __future__ import annotations

import json
import os
from typing import Any

from .atomic import atomic_write


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON for people and programs; the file appears whole or not at all.

    Raises:
        ValueError: NaN or infinity is in it, which no other program reads.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
