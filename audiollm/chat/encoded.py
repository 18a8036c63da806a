"""A conversation as the LLM sees it: ids, training targets, and whose turn each id belongs to."""
# Shapes: S token ids.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiollm.data.collation import IGNORED_LABEL

from .rendering import Piece


@dataclass
class EncodedConversation:
    """One conversation as the LLM sees it.

    Attributes:
        id: the record's id.
        token_ids: S ids.
        labels: S targets: the id where the assistant speaks (content and the mark that ends its turn), else -100.
        roles: whose turn each of the S tokens belongs to.
        frames: for an LM of several streams, int32 ``[F, K]``: the codes of the steps that are frames of sound, one
            after another; its ``token_ids`` say which steps these are.
    """

    id: str
    token_ids: list[int]
    labels: list[int]
    roles: list[str]
    frames: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @classmethod
    def from_pieces(cls, record: str, pieces: Sequence[Piece]) -> EncodedConversation:
        """Joins rendered pieces whose ids are filled in."""
        encoded = cls(record, [], [], [])
        for piece in pieces:
            encoded.token_ids += piece.token_ids
            encoded.labels += piece.token_ids if piece.by_assistant else [IGNORED_LABEL] * len(piece.token_ids)
            encoded.roles += [piece.role] * len(piece.token_ids)
        return encoded


class TooLongError(ValueError):
    """A conversation with more tokens than the context holds.

    Attributes:
        record: the conversation's id.
        num_tokens: how many tokens it has.
        limit: how many there may be.
    """

    def __init__(self, record: str, num_tokens: int, num_audio_tokens: int, limit: int) -> None:
        shorter = "shorten or cut the recording" if num_audio_tokens else "shorten the text"
        super().__init__(
            f"{record}: {num_tokens} tokens ({num_audio_tokens} of them audio) but the limit is {limit}: {shorter}, "
            "leave the record out, or raise max_length if the model's context allows it"
        )
        self.record = record
        self.num_tokens = num_tokens
        self.limit = limit
