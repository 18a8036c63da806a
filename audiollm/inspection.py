"""One training record, token by token, exactly as the model sees it (`audiollm inspect-data`)."""

from __future__ import annotations

from dataclasses import dataclass

from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.types import Conversation

from .processing.processor import AudioLLMProcessor


@dataclass(frozen=True)
class TokenRow:
    """One position of a training sequence."""

    position: int
    role: str
    token_id: int
    text: str
    """The token as text; bytes that are no complete character show as the replacement character."""
    code: int | None
    """The audio code in ``[0, codebook_size)``, or None for a text token."""
    trained: bool
    """Whether the loss asks the model to predict this token."""
    ends_role: bool
    """Whether the next token belongs to another turn or speaker."""


def token_rows(
    processor: AudioLLMProcessor, conversation: Conversation, *, max_length: int | None = None
) -> list[TokenRow]:
    """Encodes a record as training does and describes every token.

    Args:
        processor: of the Audio-LLM.
        conversation: the record.
        max_length: the model's context, in tokens; None: the text tokenizer's own limit.

    Raises:
        ValueError: if the record cannot be encoded (unreadable audio, codes out of range, longer than the context).
    """
    encoded = processor.encode_conversation(conversation, max_length=max_length)
    vocabulary = processor.vocabulary
    rows = []
    for position, token_id in enumerate(encoded.token_ids):
        code = token_id - vocabulary.first_code_id
        next_role = encoded.roles[position + 1] if position + 1 < len(encoded.roles) else None
        rows.append(
            TokenRow(
                position=position,
                role=encoded.roles[position],
                token_id=token_id,
                text=processor.tokenizer.decode([token_id]),
                code=code if 0 <= code < vocabulary.codebook_size else None,
                trained=encoded.labels[position] != IGNORED_LABEL,
                ends_role=next_role != encoded.roles[position],
            )
        )
    return rows
