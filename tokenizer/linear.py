"""A linear layer that takes the faster float32 kernel on the CPU, forward and backward.

``torch.nn.functional.linear`` calls MKL, which leaves AVX-512 unused on AMD processors: on a Zen 5 core it reaches 90
GFLOP/s where oneDNN, which torch ships as well, reaches 190; for the gradient of a weight the difference is larger
still. On Intel's they are level, or MKL is ahead. Which one it is, ``machine/kernel.py`` tries out. Results differ by
float32 rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from audiollm.tokenizer.machine.kernel import float32_kernel, onednn_product


class Linear(nn.Linear):
    """``nn.Linear`` through `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computes ``input @ weight.T + bias`` as ``torch.nn.functional.linear`` does, faster where it can.

    Args:
        input: ``[..., in]``.
        weight: ``[out, in]``.
        bias: ``[out]`` or None.

    Returns:
        ``[..., out]``.
    """
    if not (_suits_onednn(input) and _suits_onednn(weight) and float32_kernel() == "onednn"):
        return F.linear(input, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (input, weight, bias)):
        result: Tensor = _OneDNNLinear.apply(input, weight, bias)
        return result
    return onednn_product(input, weight, bias)


def _suits_onednn(tensor: Tensor) -> bool:
    return bool(
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # the compiler takes the operator from its own packing pass only
    )


class _OneDNNLinear(torch.autograd.Function):
    """Gives the operator its derivative: two more products of the same kind."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return onednn_product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        grad_rows = grad_output.reshape(-1, grad_output.shape[-1])
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = onednn_product(grad_rows, weight.t()).view(input.shape)
        # It computes a @ b.T: for a plain product a @ b, the second factor goes in transposed.
        if ctx.needs_input_grad[1]:
            grad_weight = onednn_product(grad_rows.t(), input.reshape(-1, input.shape[-1]).t())
        if ctx.needs_input_grad[2]:
            grad_bias = grad_rows.sum(dim=0)
        return grad_input, grad_weight, grad_bias
