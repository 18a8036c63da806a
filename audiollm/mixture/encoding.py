"""Conversations to token ids, each by itself where one of a batch is at fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from audiollm.chat.encoded import EncodedConversation
from audiollm.data.conversation.types import Conversation
from audiollm.vocabulary import AudioVocabulary

# Lengths are judged by the caller, so that all long records are found and not only the first.
NO_LIMIT = sys.maxsize


class RecordProcessor(Protocol):
    """What turns the records of a training into ids: that of an Audio-LLM, or of an LM of several streams."""

    tokenizer: Any
    accepted_codes: frozenset[str]

    @property
    def vocabulary(self) -> AudioVocabulary:
        """Where the ids of audio are."""

    @property
    def text_tokenizer(self) -> Any:
        """The LLM's."""

    def encode_conversations(
        self, conversations: Sequence[Conversation], *, max_length: int | None = None
    ) -> list[EncodedConversation]:
        """See `AudioLLMProcessor.encode_conversations`."""

    def check_maker(self, made_by: str | None, where: str) -> None:
        """See `AudioLLMProcessor.check_maker`."""


def encode_each(
    processor: RecordProcessor, conversations: Sequence[Conversation]
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
