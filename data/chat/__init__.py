"""Chat models that label and judge, behind an endpoint or on this machine.

Reading order: ``base`` (messages, replies, errors) → ``opening`` (from a URL or ``hf:…`` to a model) → ``endpoint``,
``local`` → ``asking`` (many things, a few at a time). Names are imported on first use: errors and messages
cost no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "ChatError": "audiollm.data.chat.base",
    "ChatMessage": "audiollm.data.chat.base",
    "ChatModel": "audiollm.data.chat.base",
    "ChatReply": "audiollm.data.chat.base",
    "EndpointSettings": "audiollm.data.chat.base",
    "ask_all": "audiollm.data.chat.asking",
    "open_chat_model": "audiollm.data.chat.opening",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
