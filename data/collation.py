"""Examples of different lengths as one batch of tensors: padded, or packed into a row."""
# Shapes: B examples, S token ids of the longest one (rounded up).

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from audiollm.tokenizer.supervision.cross_entropy import IGNORED_LABEL


class _TokenIds(TypedDict):
    input_ids: Sequence[int] | Tensor


class Example(_TokenIds, total=False):
    """One sequence for the LLM."""

    labels: Sequence[int] | Tensor
    """As long as ``input_ids``; -100 where no token is to be learnt. Absent when generating."""


def collate(
    examples: Sequence[Example],
    *,
    pad_token_id: int,
    padding_side: Literal["right", "left"] = "right",
    multiple_of: int = 1,
) -> dict[str, Tensor]:
    """Pads examples to one length.

    Args:
        examples: at least one, each with at least one token id; all of them with labels, or none.
        pad_token_id: fills ``input_ids``; ``labels`` are filled with -100.
        padding_side: "right" for training; "left" for generation, where the last token must be a real one.
        multiple_of: the length is rounded up to a multiple of this (8 or 64 suit a GPU's matrix units).

    Returns:
        int64 ``[B, S]`` each: ``input_ids``, ``attention_mask`` (1 real, 0 padding) and, if given, ``labels``.

    Raises:
        ValueError: no examples, an empty one, labels of another length or in some examples only, a bad option.
    """
    if padding_side not in ("right", "left"):
        raise ValueError(f'padding_side={padding_side!r}: use "right" (training) or "left" (generation)')
    if multiple_of < 1:
        raise ValueError(f"multiple_of={multiple_of}: use 1 or more")
    if not examples:
        raise ValueError("the batch is empty: give at least one example")
    with_labels = _check_labels(examples)
    lengths = [len(example["input_ids"]) for example in examples]
    for index, length in enumerate(lengths):
        if length == 0:
            raise ValueError(f"examples[{index}] has no token ids; leave it out of the batch")
    padded_length = -(-max(lengths) // multiple_of) * multiple_of

    size = (len(examples), padded_length)
    batch = {"input_ids": torch.full(size, pad_token_id), "attention_mask": torch.zeros(size, dtype=torch.int64)}
    if with_labels:
        batch["labels"] = torch.full(size, IGNORED_LABEL)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        columns = slice(0, length) if padding_side == "right" else slice(padded_length - length, padded_length)
        batch["input_ids"][row, columns] = torch.as_tensor(example["input_ids"], dtype=torch.int64)
        batch["attention_mask"][row, columns] = 1
        if with_labels:
            batch["labels"][row, columns] = torch.as_tensor(example["labels"], dtype=torch.int64)
    return batch


def collate_packed(examples: Sequence[Example]) -> dict[str, Any]:
    """Puts examples one behind the other into a single row, without padding.

    Args:
        examples: at least one, each with labels and at least one token id.

    Returns:
        int64 ``[1, N]`` each: ``input_ids``, ``labels``, and ``position_ids``, which begin anew with each example; and
        ``segment_lengths``, the tokens of each example. ``attention_mask`` is None: with one, transformers takes the
        row for a single sequence.

    Raises:
        ValueError: no examples, an empty one, or labels that are missing or of another length.
    """
    if not examples:
        raise ValueError("the row is empty: give at least one example")
    if not _check_labels(examples):
        raise ValueError("the examples have no labels: rows are packed for training only")
    lengths = [len(example["input_ids"]) for example in examples]
    if 0 in lengths:
        raise ValueError(f"examples[{lengths.index(0)}] has no token ids; leave it out of the row")
    labels = [torch.as_tensor(example["labels"], dtype=torch.int64).clone() for example in examples]
    for one in labels:
        one[0] = IGNORED_LABEL  # it would be predicted by the last token of the example before
    return {
        "input_ids": torch.cat([torch.as_tensor(one["input_ids"], dtype=torch.int64) for one in examples])[None],
        "attention_mask": None,
        "labels": torch.cat(labels)[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "segment_lengths": tuple(lengths),
    }


def _check_labels(examples: Sequence[Example]) -> bool:
    """Tells whether the examples have labels; raises if only some have, or if a length differs."""
    with_labels = "labels" in examples[0]
    for index, example in enumerate(examples):
        if ("labels" in example) != with_labels:
            bare = index if with_labels else 0
            raise ValueError(f"examples[{bare}] has no labels but another of its batch has; give them to all or none")
        if with_labels and len(example["labels"]) != len(example["input_ids"]):
            raise ValueError(
                f"examples[{index}] has {len(example['input_ids'])} token ids but {len(example['labels'])} labels; "
                f"give one label per token, {IGNORED_LABEL} for those that are not to be learnt"
            )
    return with_labels
