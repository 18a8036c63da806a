"""The folder of what can be fetched or made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where fetched and converted files, and what was tried out, are kept: ``$AUDIOLLM_CACHE``, else
    ``~/.cache/audiollm``.

    Raises:
        ValueError: if the home folder that this asks for is not known.
    """
    named = os.environ.get("AUDIOLLM_CACHE") or "~/.cache/audiollm"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise ValueError(f"the cache folder {named} is not known ({error}): set AUDIOLLM_CACHE to another") from error
