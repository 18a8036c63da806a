"""Spoken audio under test: synthesized, reconstructed, recognized, compared with voices and predicted opinions.

Reading order: ``seed_tts_meta`` (what is to be said) → ``synthesis`` (recordings) → ``judges/`` (what is said of them)
→ ``words`` (word error rates) → ``table``; ``reconstruction_report`` is the report on one recording. Public names are
imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "ReconstructionReport": "audiollm.benchmarks.speech.reconstruction_report",
    "report_reconstruction": "audiollm.benchmarks.speech.reconstruction_report",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(import_module(_HOME_OF[name]), name)
