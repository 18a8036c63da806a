"""Outputs that are there already: kept, unless replacing them is asked for."""

from __future__ import annotations

import os


def refuse_existing(output: str | os.PathLike[str], overwrite: bool) -> None:
    """Raises ValueError if an output exists that may not be replaced."""
    if os.path.exists(output) and not overwrite:
        raise ValueError(f"{os.fspath(output)} exists already; delete it, choose another output, or set --overwrite")
