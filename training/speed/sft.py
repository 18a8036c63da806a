"""Updates of a fine-tuning at the shape of a published LLM, with random weights: padded, packed, with faster kernels.

Each update is what ``training/sft.py`` makes of one in a single process, by the same parts: records are cut into passes
of so many tokens, the loss is that of the target tokens alone, weights are float32 and products bfloat16. Reading and
encoding of records is left out: it is done by processors, meanwhile.

Of the operations, two shares of what the device can do are told. *MFU* is by the usual convention: 6 for each weight of
the layers and of the output layer and each token, and those of causal attention, padding left out. *Done* counts the
output layer for target tokens only, as nothing else is computed there.
"""
# Shapes: S tokens of a record.

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from audiollm.benchmarks.speed.gpu.measurements import Figures, Measurements, run_section
from audiollm.benchmarks.speed.gpu.plan import how_to_get, missing_packages
from audiollm.benchmarks.speed.llm_shapes import QWEN_05B, QWEN_15B, SMOKE_SHAPE, LLMShape, qwen_config
from audiollm.benchmarks.speed.timing import now
from audiollm.data.collation import IGNORED_LABEL, Example, collate, collate_packed
from audiollm.data.packing import best_fit
from audiollm.training.audio_llm.objective import TargetTokenLoss, num_chunks
from audiollm.training.audio_llm.packed_attention import segment_attention
from audiollm.training.loop.batches import cut_by_frames
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.optimizer import make_optimizer

_SHAPES = {shape.name: shape for shape in (QWEN_05B, QWEN_15B)}
_TOKENS_PER_PASS = {QWEN_05B.name: 16_384, QWEN_15B.name: 8_192, SMOKE_SHAPE.name: 512}
_PASSES, _UPDATES, _WARM_UPS = 4, 3, 2
# Records are drawn and nothing is written: only the optimizer is asked for.
_RUN = RunConfig(train_data="drawn", output_dir="none", learning_rate=1e-5, betas=(0.9, 0.95), weight_decay=0.01)
_TEMPLATE_TOKENS = 20  # of a conversation: roles, marks


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        name: in the table.
        packs: records one behind the other, or padded.
        attention: as transformers calls it.
        compiles: norms and feed-forward layers, by ``torch.compile``.
        liger: its kernels for norms, rotations and feed-forward layers.
        needs: modules without which it is left out.
        needs_gpu: whether it is left out on processors.
    """

    name: str
    packs: bool = True
    attention: str = "sdpa"
    compiles: bool = False
    liger: bool = False
    needs: tuple[str, ...] = ()
    needs_gpu: bool = False


VARIANTS = (
    Variant("padded", packs=False),
    Variant("packed"),
    Variant("packed, compiled", compiles=True),
    Variant("packed, flash attention", attention="flash_attention_2", needs=("flash_attn",), needs_gpu=True),
    # Last: it puts its kernels into transformers' own modules, for good.
    Variant("packed, Liger", liger=True, needs=("liger_kernel",), needs_gpu=True),
)


@dataclass(frozen=True)
class _Scale:
    shape: LLMShape
    tokens_per_pass: int
    passes: int
    updates: int
    backend: str  # of torch.compile


def measure(measurements: Measurements) -> None:
    """Every variant on the same records."""
    settings = measurements.settings
    shape = SMOKE_SHAPE if settings.smoke else _SHAPES[settings.arguments["shape"]]
    passes, updates, backend = (1, 1, "eager") if settings.smoke else (_PASSES, _UPDATES, "inductor")
    scale = _Scale(shape, _TOKENS_PER_PASS[shape.name], passes, updates, backend)
    measurements.announce(variant.name for variant in VARIANTS)
    device = measurements.device
    for variant in VARIANTS:
        missing = missing_packages(variant.needs)
        if missing:
            measurements.leave_out(variant.name, "skipped", how_to_get(missing))
        elif variant.needs_gpu and device.type == "cpu":
            measurements.leave_out(variant.name, "skipped", "its kernels are for GPUs")
        else:
            rates = (settings.gflops.get("bfloat16"), settings.peak_gflops)
            measurements.make(variant.name, partial(_time_variant, variant, scale, device, rates))


def draw_records(num_tokens: int, vocabulary_size: int, longest: int, seed: int) -> list[Example]:
    """Draws records of so many tokens in all: a clip of 1 to 12 s and what is said in it, in turns the answer.

    Args:
        num_tokens: as many as fit.
        vocabulary_size: of the LLM.
        longest: tokens of a record.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    records: list[Example] = []
    while True:
        seconds = float(np.clip(generator.lognormal(1.2, 0.6), 1, 12))
        parts = [round(25 * seconds) + 2, max(2, round(3.2 * seconds))]  # codes and marks; text
        answer = parts[len(records) % 2]
        length = min(sum(parts) + _TEMPLATE_TOKENS, longest)
        if length > num_tokens:
            return records
        num_tokens -= length
        token_ids = generator.integers(vocabulary_size, size=length)
        labels = token_ids.copy()
        labels[: max(1, length - answer)] = IGNORED_LABEL
        records.append({"input_ids": token_ids.tolist(), "labels": labels.tolist()})


def passes_of(records: Sequence[Example], variant: Variant, tokens_per_pass: int) -> list[dict[str, Any]]:
    """The passes of an update, as `TargetTokenLoss` takes them, on the processor."""
    lengths = [len(record["input_ids"]) for record in records]
    if variant.packs:
        return [collate_packed([records[place] for place in row]) for row in best_fit(lengths, tokens_per_pass)]
    rows = cut_by_frames(range(len(records)), lengths, tokens_per_pass)
    return [dict(collate([records[place] for place in row], pad_token_id=0)) for row in rows]


def _time_variant(
    variant: Variant, scale: _Scale, device: torch.device, rates: tuple[float | None, float | None]
) -> Figures:
    objective = _build(variant, scale, device)
    optimizer = make_optimizer(objective, _RUN, device)
    vocabulary_size = scale.shape.vocabulary_size
    seconds, losses, counts = [], [], _Counts()
    attention: Any = segment_attention(objective.causal_lm) if variant.packs else nullcontext()
    with attention:
        for number in range(_WARM_UPS + scale.updates):
            records = draw_records(scale.passes * scale.tokens_per_pass, vocabulary_size, scale.tokens_per_pass, number)
            passes = passes_of(records, variant, scale.tokens_per_pass)
            started = now(device)
            losses.append(_update(objective, optimizer, passes, vocabulary_size, device))
            if number >= _WARM_UPS:
                seconds.append(now(device) - started)
                counts.add(records, passes)
    figures: Figures = {
        "tokens_per_second": counts.tokens / sum(seconds),
        "seconds_of_updates": seconds,
        "padding_share": 1 - counts.tokens / counts.positions,
        "passes_per_update": counts.passes / len(seconds),
        "tokens_per_pass": scale.tokens_per_pass,
        "losses": losses,
        "cross_entropy": objective.cross_entropy,
    }
    return figures | _shares(objective.causal_lm, counts, sum(seconds), rates, figures)


def _build(variant: Variant, scale: _Scale, device: torch.device) -> TargetTokenLoss:
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            qwen_config(scale.shape), dtype=torch.float32, attn_implementation=variant.attention
        ).to(device)
    if variant.liger:
        # The loss is our own, on target tokens alone.
        apply: Callable[..., None] = importlib.import_module("liger_kernel.transformers").apply_liger_kernel_to_qwen2
        apply(cross_entropy=False, fused_linear_cross_entropy=False, model=model)
    if variant.compiles:
        # Not whole layers, which hand on how long a row's records are: each number of them would be compiled anew.
        for layer in model.get_decoder().layers:
            for part in (layer.input_layernorm, layer.post_attention_layernorm, layer.mlp):
                part.compile(dynamic=True, backend=scale.backend)
    return TargetTokenLoss(model, mixed_precision="bf16").train()


def _update(
    objective: TargetTokenLoss,
    optimizer: torch.optim.Optimizer,
    passes: Sequence[dict[str, Any]],
    vocabulary_size: int,
    device: torch.device,
) -> float:
    """Makes an update; returns its loss."""
    targets = [int((one["labels"][:, 1:] != IGNORED_LABEL).sum()) for one in passes]
    total = torch.zeros((), device=device)
    for one, num_targets in zip(passes, targets, strict=True):
        inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in one.items()}
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = objective(**inputs, num_chunks=num_chunks(num_targets, vocabulary_size))
        (loss / sum(targets)).backward()
        total += loss.detach()
    nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(total) / sum(targets)


@dataclass
class _Counts:
    """What the timed updates held."""

    tokens: int = 0
    targets: int = 0
    positions: int = 0
    squares: int = 0  # Σ S²
    passes: int = 0

    def add(self, records: Sequence[Example], passes: Sequence[dict[str, Any]]) -> None:
        lengths = [len(record["input_ids"]) for record in records]
        self.tokens += sum(lengths)
        self.squares += sum(length**2 for length in lengths)
        self.targets += sum(sum(label != IGNORED_LABEL for label in record["labels"][1:]) for record in records)
        self.positions += sum(one["input_ids"].numel() for one in passes)
        self.passes += len(passes)


def operations_of(model: Any, tokens: int, targets: int, squares: int) -> tuple[int, int]:
    """Operations of forward and backward passes, by convention and as they are done; see the top of this file.

    Args:
        model: the causal LM.
        tokens: of all records.
        targets: those that count in the loss.
        squares: sum of the squared lengths of the records.
    """
    head = model.get_output_embeddings()
    layers = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear) and part is not head)
    config = model.config
    # Forward: scores and sums of values, 2 · S² · width each, half of them masked; backward twice as many.
    attention = 6 * squares * config.hidden_size * config.num_hidden_layers
    usual = 6 * (layers + head.weight.numel()) * tokens + attention
    return usual, 6 * layers * tokens + 6 * head.weight.numel() * targets + attention


def _shares(
    model: Any, counts: _Counts, seconds: float, rates: tuple[float | None, float | None], figures: Figures
) -> Figures:
    usual, done = operations_of(model, counts.tokens, counts.targets, counts.squares)
    measured, peak = rates
    shares: Figures = {"operations": usual, "operations_done": done, "target_share": counts.targets / counts.tokens}
    told = [f"{figures['tokens_per_second']:,.0f} tokens/s"]
    if measured is not None:
        shares["mfu_of_measured_rate"] = usual / seconds / measured / 1e9
        shares["done_of_measured_rate"] = done / seconds / measured / 1e9
        told.append(
            f"MFU {shares['mfu_of_measured_rate']:.0%} (done {shares['done_of_measured_rate']:.0%}) of products"
        )
    if peak is not None:
        shares["mfu_of_data_sheet"] = usual / seconds / peak / 1e9
        told.append(f"MFU {shares['mfu_of_data_sheet']:.0%} of the data sheet")
    told.append(f"padding {figures['padding_share']:.0%}")
    return shares | {"told": ", ".join(told)}


if __name__ == "__main__":
    run_section(measure)
