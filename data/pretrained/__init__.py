"""Pretrained parts that package registries carry, as folders that transformers loads without the Hub.

A machine that reaches a package index but no model hub still gets a real Whisper checkpoint (``whisper``, whose packed
weights ``ctranslate2`` reads) and the real Qwen2.5 text tokenizer (``qwen``). Each is converted once, checked against
pinned hashes on the way in, and kept in the cache folder. Names are imported on first use, transformers with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "WhisperFiles": "audiollm.data.pretrained.whisper",
    "convert_whisper": "audiollm.data.pretrained.whisper",
    "merges_from_ranks": "audiollm.data.pretrained.qwen",
    "qwen_tokenizer": "audiollm.data.pretrained.qwen",
    "qwen_tokenizer_from_package": "audiollm.data.pretrained.qwen",
    "read_ranks": "audiollm.data.pretrained.qwen",
    "whisper_from_package": "audiollm.data.pretrained.whisper",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
