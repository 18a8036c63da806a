"""Models under test: they hear a recording, read a question and answer in text.

Reading order: ``base`` (what they all offer), ``turns`` (requests as chats) → ``audio_llm`` and ``uniaudio`` (ours),
``hf_model`` (any of transformers), ``endpoint`` → ``opening`` (one of them by name) → ``revisions`` (which checkpoint
it was). Public names are imported on first use, so that reading results needs no model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["AnswerSettings", "AudioChatModel", "ChatAnswer", "ChatRequest"],
        "opening": ["open_audio_chat_model"],
    },
)
