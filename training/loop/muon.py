"""Muon: momentum steps of matrices, made orthogonal (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/).

`torch.optim.Muon` computes in bfloat16 whatever the device, which processors without instructions for it only emulate:
the orthogonalization then costs more than half of what a small model's forward and backward pass do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the polynomial of the post: steepest at zero, near 1 between 0.7 and 1.2
_NUM_STEPS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalized Nesterov momentum of each matrix, as large as AdamW's at the same rate
    (Liu et al., 2025, arXiv:2502.16982, section 2.2).

    Args:
        params: matrices, or groups of them.
        lr: learning rate.
        momentum: decay rate of the mean gradient.
        weight_decay: share of ``lr`` by which weights shrink, decoupled from the gradient.

    Raises:
        ValueError: for a weight that is not a matrix.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            if weight.ndim != 2:
                raise ValueError(f"Muon is for matrices, and a weight has shape {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Makes one update. Matrices without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[Any, list[torch.Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape, weight.dtype, weight.device].append(weight)
            for weights in alike.values():  # one product for all matrices of a shape
                self._update(weights, group)
        return loss

    def _update(self, weights: list[torch.Tensor], group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        directions = []
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            directions.append(gradient.lerp(mean, momentum))
        size = 0.2 * max(weights[0].shape) ** 0.5
        for weight, step in zip(weights, orthogonalized(torch.stack(directions)), strict=True):
            weight.mul_(1 - lr * group["weight_decay"])
            weight.add_(step, alpha=-lr * size)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Brings the singular values of matrices near 1 by five steps of a quintic Newton-Schulz iteration.

    Args:
        matrices: ``(count, rows, columns)``.

    Returns:
        The same shape and type; singular values lie between 0.5 and 1.5, but for those that were next to none.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPS)  # no singular value above 1
    for _ in range(_NUM_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
