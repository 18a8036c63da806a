"""The folder of what can be fetched or made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where fetched and converted files, and what was tried out, are kept: ``$AUDIOLLM_CACHE``, else
    ``~/.cache/audiollm``."""
    return Path(os.environ.get("AUDIOLLM_CACHE") or Path.home() / ".cache" / "audiollm").expanduser()
