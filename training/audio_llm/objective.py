"""Next-token loss on the assistant's tokens, without logits anywhere else.

A vocabulary of 160,000 tokens makes logits the largest tensor of a step: 4,096 positions take 2.6 GB in float32, twice
that with their gradient. Only the positions that predict a target need them, and those are taken in chunks, so that
memory does not grow with vocabulary × tokens: by torch's ``linear_cross_entropy``, which makes the gradients of a chunk
right behind its loss, or else by chunks whose logits are recomputed in the backward pass.
"""
# Shapes: B batch, S sequence, D hidden size, N target tokens, V vocabulary.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audiollm.data.collation import IGNORED_LABEL

from .packed_attention import packed_arguments

# Logits held at once: 2**26 float32 numbers are 256 MiB (418 positions of a vocabulary of 160,000).
_LOGITS_PER_CHUNK = 2**26

# Models with these settings transform their logits in ways that `lm_head(hidden)` leaves out.
_UNSUPPORTED_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def num_chunks(num_targets: int, vocabulary_size: int) -> int:
    """Chunks that keep the logits of ``num_targets`` positions within the memory bound; at least 1."""
    return max(1, math.ceil(num_targets * vocabulary_size / _LOGITS_PER_CHUNK))


def count_targets(labels_BS: Tensor) -> int:
    """Tokens that the loss is summed over: the first position of a sequence is predicted by nothing."""
    return int((labels_BS[:, 1:] != IGNORED_LABEL).sum())


class TargetTokenLoss(nn.Module):
    """Sum of the cross-entropy over target tokens.

    It wraps the model, so that DistributedDataParallel and DeepSpeed see one forward pass that ends in the loss.

    Args:
        model: a causal LM of transformers, or a PEFT model around one.
        mixed_precision: ``no`` or ``bf16``, as the run computes.
        splits_weights: whether processes hold parts of the output layer, which is whole only while it is called.

    Raises:
        ValueError: if the model's logits are not simply ``lm_head(hidden states)``.
    """

    def __init__(self, model: nn.Module, mixed_precision: str = "no", splits_weights: bool = False) -> None:
        super().__init__()
        for name in _UNSUPPORTED_SETTINGS:
            if getattr(model.config, name, None) not in (None, 1, 1.0):
                raise ValueError(
                    f"the model's config sets {name}={getattr(model.config, name)}, which this loss leaves out: "
                    "use a model without it, such as Qwen2.5"
                )
        if getattr(model.config, "output_router_logits", False):
            raise ValueError(
                "the model's config sets output_router_logits, a loss of the router that this loss leaves out: set it "
                "to false in config.json"
            )
        self.model = model
        self._recomputes_because = _reason_to_recompute(
            self.causal_lm.get_output_embeddings(), mixed_precision, splits_weights
        )

    @property
    def cross_entropy(self) -> str:
        """How targets that take more than one chunk get their loss, for the run's record."""
        if self._recomputes_because is None:
            return "torch.nn.functional.linear_cross_entropy"
        return f"chunks recomputed in the backward pass, as {self._recomputes_because}"

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that FSDP gathers one by one, as the model names them; accelerate asks what it prepares."""
        return list(self.causal_lm._no_split_modules or [])

    @property
    def causal_lm(self) -> Any:
        """The transformers model itself, adapters in place."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor,
        position_ids: Tensor | None = None,
        segment_lengths: Sequence[int] | None = None,
        num_chunks: int = 1,
    ) -> Tensor:
        """Computes the loss of one micro-batch: of `collate`, or of `collate_packed` within `segment_attention`.

        Args:
            input_ids: int64 ``[B, S]``, padded on the right, or a packed row ``[1, S]``.
            attention_mask: int64 ``[B, S]``, 0 on padding; None for a packed row.
            labels: int64 ``[B, S]``, aligned with ``input_ids``; ``IGNORED_LABEL`` where nothing is to be learned.
            position_ids: int64 ``[1, S]`` of a packed row.
            segment_lengths: tokens of each record of a packed row.
            num_chunks: pieces the logits are computed in. Under ZeRO-3 every process must pass the same number, because
                each piece gathers the output layer.

        Returns:
            The sum over target tokens, in nats, float32 scalar. Divide by the target tokens of the whole update.
        """
        causal_lm = self.causal_lm
        packed: dict[str, Any] = {}
        if segment_lengths is not None:
            packed = packed_arguments(causal_lm, segment_lengths, input_ids.device) | {"position_ids": position_ids}
        # use_cache=False: with a cache, transformers takes a packed row for a single sequence.
        hidden_BSD = causal_lm.get_decoder()(input_ids, attention_mask=attention_mask, use_cache=False, **packed)[0]
        is_target_BS = labels[:, 1:] != IGNORED_LABEL
        hidden_ND = hidden_BSD[:, :-1][is_target_BS]
        labels_N = labels[:, 1:][is_target_BS]
        return self.of_targets(hidden_ND, labels_N, num_chunks)

    def of_targets(self, hidden_ND: Tensor, labels_N: Tensor, num_chunks: int) -> Tensor:
        """The loss of positions that predict a target.

        Args:
            hidden_ND: the decoder's output there, ``[N, D]``.
            labels_N: what they are to predict, int64 ``[N]``.
            num_chunks: as for `forward`.
        """
        lm_head = self.causal_lm.get_output_embeddings()
        if num_chunks > 1 and torch.is_grad_enabled() and len(labels_N) and self._recomputes_because is None:
            return _linear_cross_entropy(lm_head, hidden_ND, labels_N, num_chunks)
        return chunked_cross_entropy(lm_head, hidden_ND, labels_N, num_chunks)


def chunked_cross_entropy(lm_head: nn.Module, hidden_ND: Tensor, labels_N: Tensor, num_chunks: int) -> Tensor:
    """Sum of the cross-entropy of positions, whose logits are made in pieces and made again in the backward pass.

    Args:
        lm_head: makes logits ``[N, V]`` of hidden states ``[N, D]``.
        hidden_ND: of the positions.
        labels_N: what they are to predict, int64 ``[N]``.
        num_chunks: how many pieces.
    """
    total = hidden_ND.new_zeros((), dtype=torch.float32)
    # tensor_split, not chunk: it makes exactly so many pieces, empty ones too, as ZeRO-3 needs of every process.
    for chunk_ND, chunk_labels_N in zip(
        hidden_ND.tensor_split(num_chunks), labels_N.tensor_split(num_chunks), strict=True
    ):
        if num_chunks > 1 and torch.is_grad_enabled():  # one chunk alone needs no second forward pass
            total = total + checkpoint(_summed_cross_entropy, lm_head, chunk_ND, chunk_labels_N, use_reentrant=False)
        else:
            total = total + _summed_cross_entropy(lm_head, chunk_ND, chunk_labels_N)
    return total


def _reason_to_recompute(lm_head: nn.Module, mixed_precision: str, splits_weights: bool) -> str | None:
    """Why torch's own function cannot be used; None if it can."""
    if not hasattr(F, "linear_cross_entropy"):
        return f"torch {torch.__version__} has no linear_cross_entropy"
    if type(lm_head) is not nn.Linear:
        return f"the output layer is a {type(lm_head).__name__}"
    if lm_head.bias is not None:
        return "the output layer has a bias"
    if splits_weights:
        return "the output layer is split over the processes"
    if mixed_precision != "no" or lm_head.weight.dtype != torch.float32:
        return "it would round the loss to bfloat16"
    return None


def _linear_cross_entropy(lm_head: nn.Linear, hidden_ND: Tensor, labels_N: Tensor, num_chunks: int) -> Tensor:
    # An explicit size: what torch chooses by itself takes many times longer.
    options = nn.LinearCrossEntropyOptions(  # from torch 2.13 on
        batch_chunk_size=math.ceil(len(labels_N) / num_chunks), chunking_method=None
    )
    total: Tensor = F.linear_cross_entropy(hidden_ND, lm_head.weight, labels_N, reduction="sum", options=options)
    return total


def _summed_cross_entropy(lm_head: nn.Module, hidden_ND: Tensor, labels_N: Tensor) -> Tensor:
    logits_NV = lm_head(hidden_ND)
    # float32: a bf16 sum of exponentials over 160,000 entries loses most of its digits.
    return F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")
