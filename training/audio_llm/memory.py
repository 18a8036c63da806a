"""Memory of a fine-tuning, without its weights: an update is made on tensors that have shapes and no values.

torch's own tracker follows every tensor of it: weights, gradients, what the forward pass keeps, logits, the optimizer.
What several processes share is then divided, and what they exchange is added, by the rules of `LAYOUTS`.
"""
# Shapes: B rows, S tokens of a row, N target tokens, D hidden size.

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM

from audiollm.loading import json_copy
from audiollm.training.loop.optimizer import make_optimizer
from audiollm.vocabulary import AudioVocabulary

from .adapters import add_adapters
from .config import SFTConfig
from .model import recompute_activations
from .objective import TargetTokenLoss, num_chunks

Layout = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
# What every process holds a part of.
_SHARDED: dict[str, tuple[str, ...]] = {
    "single": (),
    "ddp": (),
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "gradients"),
    "zero3": ("optimizer", "gradients", "weights"),
    "fsdp2": ("optimizer", "gradients", "weights"),
}
_CATEGORIES = {"Parameter": "weights", "Buffer": "weights", "Gradient": "gradients", "Optstate": "optimizer"}


@dataclass(frozen=True)
class PassShape:
    """A forward pass of one process.

    Attributes:
        rows: B.
        tokens: S, padding included.
        targets: N, over all rows.
    """

    rows: int
    tokens: int
    targets: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the moment of an update at which one process holds most.

    Attributes:
        weights: of the model.
        gradients: of what is trained.
        optimizer: its state.
        activations: what the forward pass keeps, logits included, and what is computed at that moment.
        exchange: buffers in which processes exchange gradients and weights.
        num_parameters: of the model.
        num_trainable: those that are trained.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    exchange: int
    num_parameters: int
    num_trainable: int

    @property
    def total(self) -> int:
        """All of it, without what the process itself takes: libraries, and on a GPU the context of CUDA."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.exchange


def estimate_memory(
    config: SFTConfig,
    model_config: Any,
    vocabulary: AudioVocabulary | None,
    shape: PassShape,
    layout: Layout = "single",
    num_processes: int = 1,
    num_passes: int = 1,
) -> MemoryEstimate:
    """Follows the second update of a run, in which the optimizer has its state.

    Args:
        config: the run; what it trains, in which types, and what it keeps.
        model_config: the LLM's, extended.
        vocabulary: where its audio tokens lie; needed for LoRA with audio rows.
        shape: of each pass.
        layout: how processes share the work.
        num_processes: how many.
        num_passes: that are accumulated for an update.

    Raises:
        ValueError: if the model cannot be trained so; see `TargetTokenLoss`.
    """
    if config.shard_optimizer and layout != "ddp":
        raise ValueError(f"shard_optimizer is for ddp, not for {layout}: leave it out")
    objective = _objective(config, model_config, vocabulary, splits_weights="weights" in _SHARDED[layout])
    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_storage(objective)
        trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        alone = dataclasses.replace(config, shard_optimizer=False)  # there are no other processes now
        optimizer = make_optimizer(objective, alone, torch.device("cpu"))
        tracker = MemTracker()
        tracker.track_external(objective, optimizer)
        one_pass = _Pass(objective, config)
        smallest = PassShape(1, 2, 1)
        with tracker:
            # The tracker wants to hear of the gradient of every weight: in this pass, frozen ones have one, too.
            frozen = [parameter for parameter in objective.parameters() if not parameter.requires_grad]
            _set_requires_grad(frozen, True)
            one_pass(smallest).backward()
            optimizer.step()  # from here on there is a state
            optimizer.zero_grad()
            _set_requires_grad(frozen, False)
            tracker.reset_mod_stats()
            for number in range(min(num_passes, 2)):  # the third holds what the second does
                if number:
                    tracker.reset_mod_stats()
                one_pass(shape).backward()
            optimizer.step()
        [peak] = tracker.get_tracker_snapshot("peak").values()
    sizes = dict.fromkeys(("weights", "gradients", "optimizer", "activations"), 0)
    for kind, size in peak.items():
        if kind != "Total":  # the others are members of an enumeration
            sizes[_CATEGORIES.get(str(getattr(kind, "value", kind)), "activations")] += size
    whole = SimpleNamespace(
        weights=_bytes_of(objective.parameters()), trainable=_bytes_of(trained), layer=_largest_layer(objective)
    )
    for name in _SHARDED[layout]:
        sizes[name] = -(-sizes[name] // num_processes)
    if config.shard_optimizer:  # into whole weights: the largest is not cut up
        shares = [
            1 / num_processes,
            max(weight.numel() for weight in trained) / sum(weight.numel() for weight in trained),
        ]
        sizes["optimizer"] = math.ceil(sizes["optimizer"] * max(shares))
    return MemoryEstimate(
        **sizes,
        exchange=_exchange(layout, num_processes, whole),
        num_parameters=sum(parameter.numel() for parameter in objective.parameters()),
        num_trainable=sum(parameter.numel() for parameter in trained),
    )


def largest_micro_batch(estimate: Callable[[int], int], sizes: list[int], memory: int) -> int | None:
    """The largest micro batch whose estimate fits.

    Args:
        estimate: bytes that a micro batch takes.
        sizes: that may be chosen, ascending.
        memory: bytes that there are.

    Returns:
        None if not even the smallest fits.
    """
    best = None
    low, high = 0, len(sizes) - 1
    while low <= high:  # more records never take less
        middle = (low + high) // 2
        if estimate(sizes[middle]) <= memory:
            best, low = sizes[middle], middle + 1
        else:
            high = middle - 1
    return best


def _objective(
    config: SFTConfig, model_config: Any, vocabulary: AudioVocabulary | None, *, splits_weights: bool
) -> TargetTokenLoss:
    """The model of a run as it is trained, on the meta device."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            json_copy(model_config),
            dtype=getattr(torch, config.dtype),
            # Flash attention keeps what torch's kernel keeps, and needs a GPU even to be asked.
            attn_implementation="eager" if config.attn_implementation == "eager" else "sdpa",
        )
        if config.gradient_checkpointing:
            recompute_activations(model)
        trained: nn.Module = model
        if config.lora is not None:
            audio_llm: Any = SimpleNamespace(model=model, vocabulary=vocabulary)
            trained = add_adapters(audio_llm, config.lora)
    return TargetTokenLoss(trained, config.mixed_precision, splits_weights).train()


def _give_storage(module: nn.Module) -> None:
    """Puts tensors that count into the place of those that have none; what is tied stays tied."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            if parameter is not None:
                part._parameters[name] = made[id(parameter)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class _Pass(nn.Module):
    """A forward pass with as many targets as are said: which tokens they are takes values.

    A module, as the tracker refuses a second call of a module that is within no other: the output layer is called for
    each piece of the logits.
    """

    def __init__(self, objective: TargetTokenLoss, config: SFTConfig) -> None:
        super().__init__()
        self.objective = objective
        self.computes_in_bfloat16 = config.mixed_precision == "bf16"

    def forward(self, shape: PassShape) -> Tensor:
        """The loss of a pass of this shape."""
        causal_lm = self.objective.causal_lm
        token_ids_BS = torch.zeros(shape.rows, shape.tokens, dtype=torch.long)
        labels_N = torch.zeros(shape.targets, dtype=torch.long)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.computes_in_bfloat16):
            hidden_BSD = causal_lm.get_decoder()(
                token_ids_BS, attention_mask=torch.ones_like(token_ids_BS), use_cache=False
            )[0]
            hidden_ND = _first_rows(hidden_BSD[:, :-1], shape.targets)
            chunks = num_chunks(shape.targets, causal_lm.get_output_embeddings().weight.shape[0])
            return self.objective.of_targets(hidden_ND, labels_N, chunks)


def _set_requires_grad(parameters: list[nn.Parameter], value: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(value)
        parameter.grad = None


def _first_rows(hidden_BSD: Tensor, num_rows: int) -> Tensor:
    return hidden_BSD.reshape(-1, hidden_BSD.shape[-1])[:num_rows].clone()


def _bytes_of(parameters: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _largest_layer(module: nn.Module) -> int:
    """Bytes of the largest part that shards are gathered for: a layer of the decoder, or the table of embeddings."""
    sizes = [_bytes_of(part.parameters()) for part in module.modules() if isinstance(part, nn.Embedding)]
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            sizes += [_bytes_of(layer.parameters()) for layer in part]
    return max(sizes, default=0)


def _exchange(layout: Layout, num_processes: int, whole: Any) -> int:
    """Buffers of one process.

    Plain data parallelism copies gradients into buckets as large as they are. DeepSpeed's ZeRO-1 and -2 keep two
    buckets of 500 million numbers, or of all gradients if these are fewer, and a copy of the process's weights.
    What shards the weights gathers one layer while the next one is on its way.
    """
    if layout == "single" or num_processes == 1:
        return 0
    if layout == "ddp":
        return int(whole.trainable)
    if layout in ("zero1", "zero2"):
        bucket = min(whole.trainable, 2 * 500_000_000)
        return int(2 * bucket + whole.trainable // num_processes)
    return int(2 * whole.layer)
