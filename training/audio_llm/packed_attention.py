"""Attention of packed rows, kept inside each record.

Transformers finds the records of a packed row by its ``position_ids``, but builds a mask of tokens × tokens from them,
with which the fast kernels of ``scaled_dot_product_attention`` cannot be used: packing would cost more than padding.
Here the kernel runs once for each record instead. FlashAttention takes the lengths themselves.
"""
# Shapes: H query heads, G key and value heads, N tokens of the row, D size of a head.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

_NAME = "segments"


@contextmanager
def segment_attention(model: Any) -> Iterator[None]:
    """Inside, a model of transformers that uses SDPA attends within the segments of packed rows only.

    Forward and backward pass must both be inside: recomputed activations attend again. Other implementations know
    packed rows themselves. Outside, the model's config is what it was, so that nothing of this is saved.

    Args:
        model: the causal LM, without adapters around it.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        yield
        return
    AttentionInterface.register(_NAME, attend_within_segments)
    AttentionMaskInterface.register(_NAME, _no_mask)
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def packed_arguments(model: Any, segment_lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What a model's attention needs beside ``position_ids`` to keep packed records apart.

    Args:
        model: the causal LM, without adapters around it.
        segment_lengths: tokens of each record of the row.
        device: where the row is.

    Raises:
        ValueError: if the model uses SDPA outside of `segment_attention`.
    """
    name = str(model.config._attn_implementation)
    if name == _NAME:
        return {"segment_lengths": tuple(segment_lengths)}
    if name == "sdpa":
        raise ValueError("a packed row needs segment_attention around the forward and the backward pass")
    if "flash" not in name:
        return {}  # eager and flex: transformers makes a mask of the positions
    ends = torch.tensor([0, *segment_lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    longest = max(segment_lengths)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def attend_within_segments(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segment_lengths: Sequence[int] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each segment to itself, as transformers calls an attention function.

    Args:
        module: the attention layer.
        query: ``[1, H, N, D]``.
        key: ``[1, G, N, D]``.
        value: ``[1, G, N, D]``.
        attention_mask: None; there is nothing to mask in a row without padding.
        dropout: probability of dropping a weight.
        scaling: of the products; None for 1 / √D.
        sliding_window: tokens back that a query sees, itself included; None for all.
        segment_lengths: tokens of each segment; their sum is N.
        **others: of transformers; what would change the numbers must be None.

    Returns:
        ``[1, N, H, D]``, and no weights.

    Raises:
        ValueError: if the model does not hand the lengths on to its attention, or its attention does more than this.
    """
    if segment_lengths is None or attention_mask is not None:
        raise ValueError(f"{type(module).__name__} does not tell its attention of packed records: use packing: none")
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unknown:
        raise ValueError(
            f"{type(module).__name__} has attention with {unknown[0]}: use packing: none, or attn_implementation: eager"
        )
    lengths = list(segment_lengths)
    attended = [
        F.scaled_dot_product_attention(
            query_1HSD,
            key_1GSD,
            value_1GSD,
            attn_mask=(window := _window(query_1HSD, sliding_window)),
            dropout_p=dropout,
            is_causal=window is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for query_1HSD, key_1GSD, value_1GSD in zip(
            query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True
        )
    ]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _window(query_1HSD: Tensor, sliding_window: int | None) -> Tensor | None:
    """Which keys a query sees, ``[S, S]``, where a segment is longer than the window; else None."""
    length = query_1HSD.shape[2]
    if sliding_window is None or length <= sliding_window:
        return None
    positions = torch.arange(length, device=query_1HSD.device)
    back = positions[:, None] - positions[None]
    return (back >= 0) & (back < sliding_window)


def _no_mask(*_: Any, **__: Any) -> None:
    """The mask of packed rows: none."""
