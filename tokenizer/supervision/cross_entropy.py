"""Cross-entropy of an output matrix in chunks: logits of all targets never exist at once, nor are computed twice.

The gradient of a cross-entropy is known as soon as its logits are, so each chunk's share of both gradients is computed
in the forward pass, and the backward pass only scales them (the idea of Liger's fused linear cross-entropy, Hsu et al.,
2024, arXiv:2410.10989).
"""
# Shapes: N targets, D feature size, U output tokens.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audiollm.tokenizer.linear import linear

IGNORED_LABEL = -100  # the target that cross-entropy leaves out, as torch's own does
DEFAULT_CHUNK_SIZE = 256  # targets; with 51,865 tokens, 53 MB of float32 logits


def summed_cross_entropy(
    hidden_ND: Tensor, weight_UD: Tensor, labels_N: Tensor, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> Tensor:
    """Sums the cross-entropy of ``hidden @ weight.T`` over targets; see `cross_entropies`."""
    return cross_entropies(hidden_ND, weight_UD, labels_N, chunk_size)[0]


def cross_entropies(
    hidden_ND: Tensor, weight_UD: Tensor, labels_N: Tensor, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> tuple[Tensor, Tensor]:
    """Computes the cross-entropy of ``hidden @ weight.T`` at each target.

    Args:
        hidden_ND: decoder output at each target, any float dtype, ``[N, D]``.
        weight_UD: the output matrix, ``[U, D]``.
        labels_N: row of the right token, int64 ``[N]``.
        chunk_size: targets whose logits exist at the same time.

    Returns:
        Their sum, a float32 scalar in nats, 0 without targets; and each of them, float32 ``[N]``, without gradient.
        Multiplications take autocast's dtype, sums float32.
    """
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
    total, losses_N = _SummedCrossEntropy.apply(
        hidden_ND, weight_UD, labels_N, chunk_size, dtype, torch.is_grad_enabled()
    )
    return total, losses_N


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_UD: Tensor,
        labels_N: Tensor,
        chunk_size: int,
        dtype: torch.dtype,
        needs_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_UD.detach().to(dtype)
            hidden = hidden_ND.detach().to(dtype)
            losses_N = hidden.new_zeros(len(hidden), dtype=torch.float32)
            grad_hidden = torch.empty_like(hidden_ND) if needs_gradient and ctx.needs_input_grad[0] else None
            grad_weight = None
            if needs_gradient and ctx.needs_input_grad[1]:
                grad_weight = torch.zeros_like(weight_UD, dtype=torch.float32)  # summed over many chunks
            for first in range(0, len(hidden), chunk_size):
                rows = slice(first, first + chunk_size)
                # float32: a bf16 sum of exponentials over 50,000 entries loses most of its digits.
                log_probs_CU = linear(hidden[rows], weight).float().log_softmax(dim=-1)
                labels_C1 = labels_N[rows, None]
                losses_N[rows] = -log_probs_CU.gather(1, labels_C1).squeeze(1)
                if grad_hidden is None and grad_weight is None:
                    continue
                grad_logits_CU = log_probs_CU.exp_()  # softmax, less one at the label: the gradient of the chunk's sum
                grad_logits_CU.scatter_add_(1, labels_C1, grad_logits_CU.new_full(labels_C1.shape, -1.0))
                grad_logits = grad_logits_CU.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = linear(grad_logits, weight.T).to(grad_hidden.dtype)
                if grad_weight is not None:
                    grad_weight += linear(grad_logits.T, hidden[rows].T)
        ctx.grad_hidden, ctx.grad_weight, ctx.weight_dtype = grad_hidden, grad_weight, weight_UD.dtype
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden = None if ctx.grad_hidden is None else ctx.grad_hidden * scale.to(ctx.grad_hidden.dtype)
        grad_weight = None if ctx.grad_weight is None else (ctx.grad_weight * scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None
