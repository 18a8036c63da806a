"""Corpora to codes, resumable after any interruption.

Reading order: ``source`` (which recordings) → ``corpus`` (the run) → ``encoding`` (decoded ahead, encoded in batches) →
``report``. Names are imported on first use, the tokenizer with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "AudioFiles": "audiollm.data.tokenizing.source",
    "CorpusReport": "audiollm.data.tokenizing.report",
    "open_corpus": "audiollm.data.tokenizing.source",
    "tokenize_corpus": "audiollm.data.tokenizing.corpus",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
