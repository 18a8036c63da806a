"""Tensors that FSDP2 shards, made whole for a checkpoint and sharded again; others pass as they are. So do states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its history; of a sharded one all of it, on the CPU. All processes call it in the same order."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor().detach().cpu()
    return tensor.detach()


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with whole moments; see `whole`."""
    moments = {
        number: {name: whole(value) if isinstance(value, DTensor) else value for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


def whole_state_of(part: Any) -> dict[str, Any]:
    """The state of an optimizer, or of another part of a run, for the main process to write.

    Args:
        part: has a ``state_dict``; an optimizer may be prepared by accelerate. All processes call it in the same order.

    Returns:
        On the main process all of it, also where processes hold a share each; of no use on others.
    """
    split = getattr(getattr(part, "optimizer", part), "whole_state_dict", None)  # of a `SplitOptimizer`
    if split is not None:
        state: dict[str, Any] = split()
        return state
    state = part.state_dict()
    return whole_state(state) if hasattr(part, "param_groups") else state


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as a parameter is held: this process's part of it, if that is sharded."""
    if not isinstance(parameter, DTensor):
        return tensor
    local = tensor.to(parameter.device)
    # Every process has read the file: nothing is sent.
    return distribute_tensor(local, parameter.device_mesh, parameter.placements, src_data_rank=None)


def sharded_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with each moment held as its weight is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {
            name: sharded_like(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}
