"""An update's records as the forward passes of a process: which are together, and as which tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from audiollm.data.collation import collate, collate_packed
from audiollm.data.packing import best_fit
from audiollm.training.loop.batches import cut_by_frames, share_of_process

from .config import ConversationRunConfig, accumulation_steps, varies_in_passes
from .records import EncodedRecord
from .training_data import TrainingData


def cut_into_passes(records: Sequence[EncodedRecord], config: ConversationRunConfig) -> list[list[EncodedRecord]]:
    """Cuts a process's share of an update into passes of records of similar length, or into packed rows.

    The loss belongs to the whole update, so that cutting it changes padding and not the result.
    """
    if config.packing == "pack":
        assert config.tokens_per_pass is not None
        rows = best_fit([len(record) for record in records], config.tokens_per_pass)
        return [[records[position] for position in row] for row in rows]
    if config.tokens_per_pass is not None:
        lengths = [len(record) for record in records]
        passes = cut_by_frames(range(len(records)), lengths, config.tokens_per_pass)
        return [[records[position] for position in one] for one in passes]
    records = sorted(records, key=len)  # stable: equal lengths keep the update's order
    size = config.micro_batch_size
    return [list(records[start : start + size]) for start in range(0, len(records), size)]


def passes_of_update(
    data: TrainingData, accelerator: Accelerator, config: ConversationRunConfig, step: int
) -> list[list[EncodedRecord]] | None:
    """This process's records of an update, in the batches of its forward passes; None: `TrainingData.agree` tells them.

    Called one update ahead, from another thread.
    """
    if data.agrees_on_records:
        data.read_ahead()
        return None
    places = data.places(step)
    mine = share_of_process(places, accelerator.process_index, accelerator.num_processes)
    batches = cut_into_passes(data.encode(step, mine), config)
    if varies_in_passes(config):
        return batches or [[data.filler(places)]]
    # All processes make the same number of passes, also where there are fewer records than an update may have.
    missing = accumulation_steps(config, accelerator.num_processes) - len(batches)
    if missing:
        filler = batches[0][0].without_targets() if batches else data.filler(places)
        batches += [[filler]] * missing
    return batches


def update_on_records(
    data: TrainingData,
    config: ConversationRunConfig,
    step: int,
    passes: list[list[EncodedRecord]] | None,
    update: Callable[[int, list[list[EncodedRecord]]], dict[str, Any]],
) -> dict[str, Any]:
    """Makes an update of what `passes_of_update` read, which the data agree on, and tells the data of it.

    Returns:
        The figures of ``update``, and those of the data.
    """
    agreed = data.agree(step)
    if passes is None:
        assert agreed.records is not None  # as `agrees_on_records` says
        passes = cut_into_passes(agreed.records, config) or [[EncodedRecord.blank()]]
    figures = update(step, passes) | agreed.facts
    data.made(step)
    return figures


def as_many_as_others(
    passes: list[list[EncodedRecord]], accelerator: Accelerator, config: ConversationRunConfig
) -> list[list[EncodedRecord]]:
    """Adds passes without records where another process has more; all processes call it before an update.

    Gradients are then exchanged after so many passes. Only where their number varies is there anything to do.
    """
    if not varies_in_passes(config):
        return passes
    most = int(accelerator.gather(torch.tensor([len(passes)], device=accelerator.device)).max())
    accelerator.gradient_accumulation_steps = most
    accelerator.step = 0  # of the update's passes
    return passes + [[EncodedRecord.blank()]] * (most - len(passes))


def loss_divisor(accelerator: Accelerator, config: ConversationRunConfig, num_passes: int) -> int:
    """By what accelerate, or DeepSpeed, divides the loss of each pass of an update."""
    if varies_in_passes(config) and accelerator.distributed_type == DistributedType.DEEPSPEED:
        return 1  # as its engine was made
    return num_passes


def inputs_of(
    batch: Sequence[EncodedRecord], config: ConversationRunConfig, pad_token_id: int, device: torch.device
) -> dict[str, Any]:
    """The tensors of a pass, as `TargetTokenLoss` takes them."""
    examples = [record.example() for record in batch]
    inputs: dict[str, Any]
    if config.packing == "pack":
        inputs = collate_packed(examples)
    else:
        inputs = dict(collate(examples, pad_token_id=pad_token_id))
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


@dataclass(frozen=True)
class PassCounts:
    """What the passes of an update hold, over all processes.

    Attributes:
        target_tokens: tokens that count in the loss.
        tokens: tokens of records.
        positions: tokens with padding, which is what is computed.
        most_targets: of each pass, the target tokens of the process that has the most.
        num_passes: passes of all processes.
    """

    target_tokens: int
    tokens: int
    positions: int
    most_targets: list[int]
    num_passes: int

    @classmethod
    def of(
        cls, passes: Sequence[Sequence[EncodedRecord]], accelerator: Accelerator, config: ConversationRunConfig
    ) -> PassCounts:
        """Counts an update; all processes call it with as many passes."""
        own = torch.tensor([_sizes(one, config) for one in passes], device=accelerator.device)
        counts = accelerator.gather(own[None])  # [processes, passes, 3]
        target_tokens, tokens, positions = counts.sum(dim=(0, 1)).tolist()
        return cls(
            target_tokens, tokens, positions, counts[:, :, 0].amax(dim=0).tolist(), counts.shape[0] * counts.shape[1]
        )

    def shares(self, config: ConversationRunConfig) -> dict[str, float]:
        """What a line of the metrics says of the computation: how much is padding, and how full packed rows are."""
        shares = {"padding_share": 1 - self.tokens / self.positions}
        if config.packing == "pack":
            assert config.tokens_per_pass is not None
            shares["packed_share"] = self.tokens / (self.num_passes * config.tokens_per_pass)
        return shares


def _sizes(batch: Sequence[EncodedRecord], config: ConversationRunConfig) -> list[int]:
    """Target tokens, tokens and positions of a pass; what fills up a pass without records is padding."""
    lengths = [len(record) for record in batch]
    tokens = sum(length for length, record in zip(lengths, batch, strict=True) if record.num_targets)
    positions = sum(lengths) if config.packing == "pack" else max(lengths) * len(batch)
    return [sum(record.num_targets for record in batch), tokens, positions]
