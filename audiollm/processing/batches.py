"""Encoded conversations to a batch: lengths checked, rows padded."""
# Shapes: B conversations, S token ids of the longest.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from audiollm.chat.encoded import EncodedConversation, TooLongError
from audiollm.data.collation import IGNORED_LABEL, collate
from audiollm.vocabulary import AudioVocabulary

_PADDING = {True: True, False: False, "longest": True, "do_not_pad": False}  # and as transformers calls them
_UNLIMITED = 10**9  # transformers writes 1e30 where a tokenizer names no limit


_GROUPS = ("common_kwargs", "text_kwargs", "audio_kwargs", "processor_kwargs")  # in which transformers takes options
_AS_IT_IS = {
    "truncation": (False, "do_not_truncate"),
    "return_attention_mask": (True,),
    "return_token_type_ids": (False,),
}
_INSTEAD = {
    "truncation": "has no effect here, nothing is ever cut: leave it out, and shorten what is too long",
    "images": "have no effect here, an Audio-LLM sees nothing: leave them out",
    "videos": "have no effect here, an Audio-LLM sees nothing: leave them out",
}


def with_options(arguments: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a processor, with those that came in the groups of transformers.

    Args:
        arguments: known ones, by name.
        others: what came beside them; ``text_kwargs``, ``audio_kwargs``, ``common_kwargs`` and ``processor_kwargs`` are
            looked into. What says no more than what is so anyway (``truncation=False``) is taken.

    Raises:
        TypeError: naming an argument that would have no effect, and what to do.
        ValueError: the same for one in a group.
    """
    found = dict(arguments)
    for name, value in others.items():
        if name in _GROUPS:
            try:
                found = with_options(found, value or {})
            except TypeError as error:
                raise ValueError(f"{name}: {error}") from error
        elif name in arguments:
            found[name] = value
        elif value is not None and value not in _AS_IT_IS.get(name, ()):
            raise TypeError(f"{name} {_INSTEAD.get(name, 'has no effect here: leave it out')}")
    return found


@dataclass(frozen=True)
class BatchLayout:
    """How encoded conversations become model inputs.

    Attributes:
        return_tensors: "pt", or None for lists (not padded).
        padding: False refuses rows of different lengths instead of padding them.
        padding_side: "left" for generation.

    Raises:
        ValueError: for other values.
    """

    return_tensors: Literal["pt"] | None = "pt"
    padding: bool | str = True
    padding_side: Literal["left", "right"] = "left"

    def __post_init__(self) -> None:
        if self.return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors={self.return_tensors!r}: use 'pt' or None")
        if self.padding not in _PADDING:
            raise ValueError(f"padding={self.padding!r}: use True (to the longest row) or False")
        if self.padding_side not in ("left", "right"):
            raise ValueError(f"padding_side={self.padding_side!r}: use 'left' or 'right'")

    def batch(self, encoded: Sequence[EncodedConversation], pad_token_id: int) -> dict[str, Any]:
        """``input_ids``, ``attention_mask`` and ``assistant_masks`` (1 where the assistant speaks), ``[B, S]`` each."""
        if self.return_tensors is None:
            return {
                "input_ids": [one.token_ids for one in encoded],
                "attention_mask": [[1] * len(one) for one in encoded],
                "assistant_masks": [[int(label != IGNORED_LABEL) for label in one.labels] for one in encoded],
            }
        lengths = [len(one) for one in encoded]
        if not _PADDING[self.padding] and len(set(lengths)) > 1:
            raise ValueError(f"rows of {min(lengths)} to {max(lengths)} tokens make no tensor: use padding=True")
        batch: dict[str, Any] = dict(
            collate(
                [{"input_ids": one.token_ids, "labels": one.labels} for one in encoded],
                pad_token_id=pad_token_id,
                padding_side=self.padding_side,
            )
        )
        return batch | {"assistant_masks": (batch.pop("labels") != IGNORED_LABEL).long()}


def check_lengths(
    encoded: Sequence[EncodedConversation], max_length: int | None, model_max_length: int, vocabulary: AudioVocabulary
) -> None:
    """Refuses conversations that are too long.

    Args:
        encoded: the conversations.
        max_length: the most tokens; None: ``model_max_length``.
        model_max_length: the text tokenizer's own limit.
        vocabulary: tells audio tokens from text.

    Raises:
        TooLongError: a ValueError that names the conversation, its tokens and the limit.
        ValueError: if ``max_length`` is no number of tokens.
    """
    if max_length is not None and (type(max_length) is not int or max_length < 1):
        raise ValueError(f"max_length={max_length!r}: use a whole number from 1")
    limit = max_length if max_length is not None else model_max_length
    if limit >= _UNLIMITED:
        return
    for one in encoded:
        if len(one) > limit:
            num_audio = int(vocabulary.is_audio(torch.tensor(one.token_ids)).sum())
            raise TooLongError(one.id, len(one), num_audio, int(limit))
