"""Next-token loss on the assistant's tokens, without logits anywhere else.

A vocabulary of 160,000 tokens makes logits the largest tensor of a step: 4,096 positions take 2.6 GB in float32, twice
that with their gradient. Only the positions that predict a target need them, and those are taken in chunks whose logits
are recomputed in the backward pass, so that memory does not grow with vocabulary × tokens.
"""
# Shapes: B batch, S sequence, D hidden size, N target tokens, V vocabulary.

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audiollm.data.collation import IGNORED_LABEL

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

    Raises:
        ValueError: if the model's logits are not simply ``lm_head(hidden states)``.
    """

    def __init__(self, model: nn.Module) -> None:
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

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that FSDP gathers one by one, as the model names them; accelerate asks what it prepares."""
        return list(self.causal_lm._no_split_modules or [])

    @property
    def causal_lm(self) -> Any:
        """The transformers model itself, adapters in place."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, num_chunks: int = 1) -> Tensor:
        """Computes the loss of one micro-batch.

        Args:
            input_ids: int64 ``[B, S]``, padded on the right.
            attention_mask: int64 ``[B, S]``, 0 on padding.
            labels: int64 ``[B, S]``, aligned with ``input_ids``; ``IGNORED_LABEL`` where nothing is to be learned.
            num_chunks: pieces the logits are computed in. Under ZeRO-3 every process must pass the same number, because
                each piece gathers the output layer.

        Returns:
            The sum over target tokens, in nats, float32 scalar. Divide by the target tokens of the whole update.
        """
        causal_lm = self.causal_lm
        hidden_BSD = causal_lm.get_decoder()(input_ids, attention_mask=attention_mask, use_cache=False)[0]
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
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        # tensor_split, not chunk: it makes exactly so many pieces, empty ones too, as ZeRO-3 needs of every process.
        for chunk_ND, chunk_labels_N in zip(
            hidden_ND.tensor_split(num_chunks), labels_N.tensor_split(num_chunks), strict=True
        ):
            if num_chunks > 1 and torch.is_grad_enabled():  # one chunk alone needs no second forward pass
                total = total + checkpoint(
                    _summed_cross_entropy, lm_head, chunk_ND, chunk_labels_N, use_reentrant=False
                )
            else:
                total = total + _summed_cross_entropy(lm_head, chunk_ND, chunk_labels_N)
        return total


def _summed_cross_entropy(lm_head: nn.Module, hidden_ND: Tensor, labels_N: Tensor) -> Tensor:
    logits_NV = lm_head(hidden_ND)
    # float32: a bf16 sum of exponentials over 160,000 entries loses most of its digits.
    return F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")
