"""Models under test: they hear a recording, read a question and answer in text.

Reading order: ``base`` (what they all offer) → ``audio_llm`` (ours), ``hf_model`` (any of transformers), ``endpoint`` →
``opening`` (one of them by name) → ``revisions`` (which checkpoint it was). Public names are imported on first use, so
that reading results needs no model.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "AnswerSettings": "audiollm.benchmarks.models.base",
    "AudioChatModel": "audiollm.benchmarks.models.base",
    "ChatAnswer": "audiollm.benchmarks.models.base",
    "ChatRequest": "audiollm.benchmarks.models.base",
    "open_audio_chat_model": "audiollm.benchmarks.models.opening",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(import_module(_HOME_OF[name]), name)
