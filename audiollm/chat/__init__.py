"""Chats on their way to token ids and back.

Reading order: ``input`` (what callers pass becomes a conversation) → ``rendering`` (a chat template's text, cut into
pieces that can be tokenized safely) → ``encoded`` (ids, training targets, roles); back: ``segments`` (text, codes).
`AudioLLMProcessor` in ``audiollm/processing`` puts them together.
"""

from .encoded import EncodedConversation, TooLongError
from .input import AudioSource, Chat, ChatMessage, audio_parts
from .segments import AudioSegment, TextSegment, split_segments

__all__ = [
    "AudioSegment",
    "AudioSource",
    "Chat",
    "ChatMessage",
    "EncodedConversation",
    "TextSegment",
    "TooLongError",
    "audio_parts",
    "split_segments",
]
