"""Exponential moving average of weights: what a flow model decodes with, smoother than its last update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Averages of a module's trainable weights, in float32 on their device.

    After updates with weights w_1 … w_n, started from w_0, the average is
    ``d_1 … d_n w_0 + Σ (1 - d_i) d_{i+1} … d_n w_i``. The decay d_i of update i is ``min(decay, (1 + i) / (10 + i))``,
    so that an average over thousands of updates does not remember the random start of a short run.

    Args:
        module: the module, not wrapped for data parallelism; its present weights are the start.
        decay: of late updates, in [0, 1). 0.999 averages over about the last thousand.

    Raises:
        ValueError: if the decay is not in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay={decay}: use a number in [0, 1), such as 0.999")
        self.decay = decay
        self.num_updates = 0
        self._weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        # float32 whatever the weights are: late updates change an average by a thousandth, which bfloat16 rounds away.
        self._averages = [weight.detach().float().clone() for weight in self._weights]

    def decay_at(self, update: int) -> float:
        """Decay of an update, counted from 1."""
        # 0.18 at the first update, 0.5 at the eighth, 0.99 only at the 890th: an early average spans the last ninth of
        # the updates, where a constant 0.999 would be mostly the random start for hundreds of them.
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the present weights."""
        self.num_updates += 1
        weights = [
            weight.detach().to(average.dtype) for weight, average in zip(self._weights, self._averages, strict=True)
        ]
        torch._foreach_lerp_(self._averages, weights, 1 - self.decay_at(self.num_updates))

    def averages(self) -> dict[str, Tensor]:
        """The averaged weights by their names in the module; not copies."""
        return dict(zip(self._names, self._averages, strict=True))

    def exchange(self) -> None:
        """Swaps weights and averages: a second call swaps them back. In between the module evaluates as averaged."""
        with torch.no_grad():
            for weight, average in zip(self._weights, self._averages, strict=True):
                # In place: optimizer and data-parallel wrapper hold on to these very tensors.
                kept = weight.detach().clone()
                weight.copy_(average)
                average.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Number of updates and averages, for a checkpoint."""
        return {"num_updates": self.num_updates, "averages": self.averages()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Takes back what `state_dict` returned.

        Raises:
            ValueError: if the averages are of another module.
        """
        saved = state["averages"]
        if saved.keys() != set(self._names):
            unmatched = sorted(saved.keys() ^ set(self._names))
            raise ValueError(f"the averaged weights do not match the model: {', '.join(unmatched[:5])} …")
        for name, average in zip(self._names, self._averages, strict=True):
            if saved[name].shape != average.shape:  # or one number would be copied into all of them
                raise ValueError(f"the average of {name} is {list(saved[name].shape)} instead of {list(average.shape)}")
        self.num_updates = state["num_updates"]
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(saved[name])


@contextmanager
def averaged(average: ExponentialMovingAverage | None) -> Iterator[None]:
    """Inside, the weights are the averages, if there are any."""
    if average is None:
        yield
        return
    average.exchange()
    try:
        yield
    finally:
        average.exchange()
