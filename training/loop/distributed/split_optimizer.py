"""An optimizer whose state is split over the processes of plain data parallelism: stage 1 of ZeRO, by torch itself.

Each process updates whole weights, its share of them, and sends them to the others: the updates are those of an
optimizer that every process holds, to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer


class SplitOptimizer(ZeroRedundancyOptimizer):
    """torch's, with a state that accelerate and checkpoints can take out and put back.

    torch's own ``state_dict`` is there on one process only, after a call that all of them make, and its
    ``load_state_dict`` keeps this process's share twice and puts the steps where fused kernels do not look for them.

    Args:
        params: groups of weights.
        optimizer_class: whose updates these are.
        **defaults: its settings.
    """

    def state_dict(self) -> dict[str, Any]:
        """All groups, and of the state this process's share, under the numbers that weights have among all."""
        numbers = self._numbers()
        state = {numbers[id(weight)]: values for weight, values in self.optim.state.items()}
        positions = iter(range(len(numbers)))
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            | {"params": [next(positions) for _ in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back a state, the whole or this process's share; what is not its own is left.

        Args:
            state_dict: from `state_dict`, `whole_state_dict`, or an optimizer that is not split.
        """
        numbers = self._numbers()
        mine = [weight for group in self.optim.param_groups for weight in group["params"]]
        saved = state_dict["state"]
        state = {place: saved[numbers[id(weight)]] for place, weight in enumerate(mine) if numbers[id(weight)] in saved}
        places = iter(range(len(mine)))
        groups = [
            {**group, "params": [next(places) for _ in own["params"]]}
            for group, own in zip(state_dict["param_groups"], self.optim.param_groups, strict=True)
        ]
        self.optim.load_state_dict({"state": state, "param_groups": groups})
        for group, own in zip(self.param_groups, self.optim.param_groups, strict=True):
            group.update((name, value) for name, value in own.items() if name != "params")

    def whole_state_dict(self) -> dict[str, Any]:
        """The state of an optimizer that is not split, on the CPU, for the main process; others get their share.

        All processes call it. The shares are sent one after another, so no device ever holds all of them.
        """
        self.consolidate_state_dict(to=0)
        whole = super().state_dict() if self.rank == 0 else self.state_dict()
        self._all_state_dicts: list[dict[str, Any]] = []  # torch would keep them until the next time
        return whole

    def _numbers(self) -> dict[int, int]:
        weights: list[torch.Tensor] = [weight for group in self.param_groups for weight in group["params"]]
        return {id(weight): number for number, weight in enumerate(weights)}
