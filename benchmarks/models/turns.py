"""A request as the turns of a chat: worked examples first, then the question."""

from __future__ import annotations

from audiollm.chat.input import audio_parts
from audiollm.data.conversation.types import Conversation, Message, TextPart

from .base import ChatRequest


def conversation_of(request: ChatRequest, number: int) -> Conversation:
    """The chat of a request; its number is its name in messages."""
    messages: list[Message] = []
    for one in request.examples:
        messages.append(Message("user", [*audio_parts(one.audio, None), TextPart(one.text)]))
        messages.append(Message("assistant", [TextPart(one.answer)]))
    messages.append(Message("user", [*audio_parts(request.audio, None), TextPart(request.text)]))
    return Conversation(f"request {number}", messages)
