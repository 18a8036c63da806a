"""Optimizers by name, over groups of weights that say which learning rate they follow; matrices only are decayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .config import OPTIMIZERS_OF_BITSANDBYTES, RunConfig
from .distributed.split_optimizer import SplitOptimizer
from .muon import Muon
from .schedule import scheduled_learning_rate

ALL_PARTS = "all"
MUON_PART = "muon"  # matrices that follow a learning rate of their own
_MUON_MOMENTUM = 0.95
_SGD_MOMENTUM = 0.9

# One kernel for all weights; torch has it for these devices and refuses it on others.
_FUSED_DEVICES = ("cpu", "cuda", "xpu", "mps")


def make_optimizer(
    module: nn.Module,
    config: RunConfig,
    device: torch.device,
    parts: Mapping[str, Iterable[nn.Parameter]] | None = None,
) -> torch.optim.Optimizer:
    """Makes the optimizer that the config names.

    Args:
        module: what is trained; weights that are not trainable are left out.
        config: the run.
        device: where the weights are.
        parts: weights by the part whose learning rate they follow. None: all follow ``config.learning_rate``.

    Returns:
        The optimizer. Each of its groups has a ``part`` beside what the optimizer gives it; see `set_learning_rates`.

    Raises:
        ValueError: if this machine, or this version of torch, does not have the optimizer, or it has nothing to do.
    """
    parts = parts or {ALL_PARTS: module.parameters()}
    if config.optimizer == "muon":
        return _muon(module, config, device, parts)
    groups = _groups(parts, config.weight_decay)
    if config.optimizer in OPTIMIZERS_OF_BITSANDBYTES:
        return _of_bitsandbytes(groups, config, device)
    kind, settings = _of_torch(config, device)
    if not config.shard_optimizer:
        return kind(groups, **settings)
    return SplitOptimizer(groups, kind, **settings)


def peak_learning_rates(config: RunConfig, parts: Mapping[str, float] | None = None) -> dict[str, float]:
    """Peak learning rate of each part, that of Muon's matrices included where they have one of their own."""
    peaks = dict(parts or {ALL_PARTS: config.learning_rate})
    return peaks if config.muon_learning_rate is None else peaks | {MUON_PART: config.muon_learning_rate}


def set_learning_rates(
    optimizer: Any,
    step: int,
    total_steps: int,
    config: RunConfig,
    parts: Mapping[str, float] | None = None,
    warmup_steps: int | None = None,
) -> dict[str, float]:
    """Gives every group the learning rate of an update.

    Args:
        optimizer: from `make_optimizer`, prepared or not.
        step: the update about to be made, from 1 on.
        total_steps: updates of the whole run.
        config: the run.
        parts: peak of each part, where there are several.
        warmup_steps: updates in the warm-up; takes the place of ``warmup_ratio``.

    Returns:
        The learning rate of each part.
    """
    peaks = peak_learning_rates(config, parts)
    rates = {
        part: scheduled_learning_rate(config, step, total_steps, peak, warmup_steps) for part, peak in peaks.items()
    }
    for group in optimizer.param_groups:
        group["lr"] = rates[group["part"]]
    return rates


def learning_rate_figures(rates: Mapping[str, float]) -> dict[str, float]:
    """What a line of the metrics says about the learning rates of a model in one part."""
    figures = {"learning_rate": rates[ALL_PARTS]}
    return figures | ({"muon_learning_rate": rates[MUON_PART]} if MUON_PART in rates else {})


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Trainable matrices of linear layers that neither look up tokens nor choose among them.

    A matrix with a single row or column is left out: it is a vector.
    """
    outer: set[int] = set()
    for part in module.modules():
        ends = [part] if isinstance(part, nn.Embedding) else []
        if isinstance(part, PreTrainedModel) and part.get_output_embeddings() is not None:
            ends.append(part.get_output_embeddings())
        outer |= {id(parameter) for end in ends for parameter in end.parameters()}
    found: dict[int, Any] = {
        id(part.weight): part.weight
        for part in module.modules()
        if isinstance(part, nn.Linear | Conv1D) and part.weight.requires_grad and min(part.weight.shape) > 1
    }
    return [weight for number, weight in found.items() if number not in outer]


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for some groups and AdamW for the others, with one list of groups and one state.

    Args:
        muon: over its groups.
        adamw: AdamW over all others.
    """

    def __init__(self, muon: Muon, adamw: torch.optim.Optimizer) -> None:
        self._muon, self._adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Lets the two work on the groups and the state of this optimizer, which checkpoints save and restore."""
        num_muon = len(self._muon.param_groups)
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:num_muon], self.param_groups[num_muon:]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:
        """Makes one update.

        Raises:
            ValueError: if a closure is given: both optimizers would call it.
        """
        if closure is not None:
            raise ValueError("MuonAndAdamW takes no closure: compute the gradients before the step")
        self._muon.step()
        self._adamw.step()


def _groups(
    parts: Mapping[str, Iterable[nn.Parameter]], weight_decay: float, left_out: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Trainable weights by part, matrices apart from vectors."""
    taken = {id(parameter) for parameter in left_out}
    groups: list[dict[str, Any]] = []
    for part, parameters in parts.items():
        trainable = [one for one in parameters if one.requires_grad and id(one) not in taken]
        # Decay keeps matrices small; a norm's gain or a bias has no reason to go to zero.
        matrices, vectors = [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
        for chosen, decay in ((matrices, weight_decay), (vectors, 0.0)):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "part": part})
    return groups


def _of_torch(config: RunConfig, device: torch.device) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """An optimizer of torch and its settings."""
    settings: dict[str, Any] = {"lr": config.learning_rate}
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor, settings
    if config.optimizer == "sgd":
        momentum = _SGD_MOMENTUM if config.momentum is None else config.momentum
        return torch.optim.SGD, settings | {"momentum": momentum}
    # AdamW, also for what Muon leaves.
    return torch.optim.AdamW, settings | {"betas": config.betas, "fused": device.type in _FUSED_DEVICES}


def _muon(
    module: nn.Module, config: RunConfig, device: torch.device, parts: Mapping[str, Iterable[nn.Parameter]]
) -> MuonAndAdamW:
    parts = {part: list(parameters) for part, parameters in parts.items()}
    matrices = hidden_matrices(module)
    if not matrices:
        raise ValueError("optimizer: muon is for the matrices of linear layers, and none is trained: use adamw")
    numbers = {id(matrix) for matrix in matrices}
    groups = []
    for part, parameters in parts.items():
        chosen = [one for one in parameters if id(one) in numbers]
        if chosen:
            groups.append({"params": chosen, "part": part if config.muon_learning_rate is None else MUON_PART})
    muon = Muon(
        groups,
        lr=config.learning_rate if config.muon_learning_rate is None else config.muon_learning_rate,
        momentum=_MUON_MOMENTUM if config.momentum is None else config.momentum,
        weight_decay=config.weight_decay,
    )
    kind, settings = _of_torch(config, device)
    return MuonAndAdamW(muon, kind(_groups(parts, config.weight_decay, left_out=matrices), **settings))


def _of_bitsandbytes(groups: list[dict[str, Any]], config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    """An optimizer of bitsandbytes, whose kernels are for GPUs."""
    if device.type != "cuda":
        raise ValueError(
            f"optimizer: {config.optimizer} runs on GPUs only, and this run is on {device.type}: use adamw, adafactor, "
            "muon or sgd"
        )
    try:
        import bitsandbytes.optim as optimizers  # optional, and loads CUDA
    except ImportError as error:
        raise ValueError(f"optimizer: {config.optimizer} needs bitsandbytes: pip install bitsandbytes") from error
    made: torch.optim.Optimizer = getattr(optimizers, OPTIMIZERS_OF_BITSANDBYTES[config.optimizer])(
        groups, lr=config.learning_rate, betas=config.betas
    )
    return made
