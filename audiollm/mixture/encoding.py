"""Conversations to token ids, each by itself where one of a batch is at fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from audiollm.chat.encoded import EncodedConversation
from audiollm.data.conversation.types import Conversation
from audiollm.processing.processor import AudioLLMProcessor

# Lengths are judged by the caller, so that all long records are found and not only the first.
NO_LIMIT = sys.maxsize


def encode_each(
    processor: AudioLLMProcessor, conversations: Sequence[Conversation]
) -> list[EncodedConversation | ValueError]:
    """Encodes conversations of any length; the audio of all of them goes through the audio tokenizer together.

    Args:
        processor: of the Audio-LLM.
        conversations: typed records.

    Returns:
        For each its ids, or what is wrong with it.
    """
    if not conversations:
        return []
    try:
        return list(processor.encode_conversations(conversations, max_length=NO_LIMIT))
    except ValueError as error:
        if len(conversations) == 1:
            return [error]
        # Find out which one it was: a batch's error may not say.
        return [encoded for one in conversations for encoded in encode_each(processor, [one])]
