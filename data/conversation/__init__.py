"""The conversation record: what an Audio-LLM is trained on and asked.

One record is ``{"id", "messages": [{"role", "content"}], "task", "tools", …}``. Content is a string or a list of parts,
``{"type": "text", "text"}`` or ``{"type": "audio", …}`` with exactly one of a path, the bytes of a file, samples, or
ready codes.

Reading order: ``types`` → ``parsing`` with ``audio_parts`` and ``encoded_audio`` (checks that name file, line and
field) → ``problems`` → ``loading`` (files and data sets of records).
"""

from __future__ import annotations

from .audio_parts import parse_audio_part
from .loading import Conversations, load_conversations, validate_conversations
from .parsing import check_conversation, parse_conversation
from .problems import ConversationError, Problem
from .types import ROLES, AudioPart, Conversation, Message, TextPart

__all__ = [
    "ROLES",
    "AudioPart",
    "Conversation",
    "ConversationError",
    "Conversations",
    "Message",
    "Problem",
    "TextPart",
    "check_conversation",
    "load_conversations",
    "parse_audio_part",
    "parse_conversation",
    "validate_conversations",
]
