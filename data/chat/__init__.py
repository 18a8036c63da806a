"""Chat models that label and judge, behind an endpoint or on this machine.

Reading order: ``base`` (messages, replies, errors) → ``opening`` (from a URL or ``hf:…`` to a model) → ``endpoint``,
``local`` → ``asking`` (many things, a few at a time). Names are imported on first use: errors and messages
cost no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "asking": ["ask_all"],
        "base": ["ChatError", "ChatMessage", "ChatModel", "ChatReply", "EndpointSettings"],
        "opening": ["open_chat_model"],
    },
)
