"""Losses on held-out records, and perplexity on held-out texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from audiollm.training.audio_llm.evaluation import Records, equal_shares
from audiollm.training.audio_llm.objective import num_chunks
from audiollm.training.audio_llm.text_probe import HeldOutTexts, perplexity_figures
from audiollm.uniaudio import UniAudioLMConfig

from .objective import LossWeights
from .passes import StreamCounts, inputs_of


def held_out_figures(
    accelerator: Accelerator,
    model: nn.Module,
    config: UniAudioLMConfig,
    records: Records,
    usable: Sequence[int],
    *,
    batch_size: int,
) -> dict[str, Any]:
    """Losses over all held-out records; all processes must call it.

    Args:
        accelerator: the run's accelerator.
        model: the prepared `StreamLosses`.
        config: of the LM.
        records: the held-out data.
        usable: numbers of the records to use.
        batch_size: records per process and forward pass.

    Returns:
        ``loss``, as of an update, and what `LossWeights.figures` tells.
    """
    totals, counts = _totals(accelerator, model, config, records, usable, batch_size)
    weights = LossWeights.of(counts, config, totals.device)
    return {"loss": float(weights.loss(totals.float())), **weights.figures(totals)}


def probe_text(
    accelerator: Accelerator, model: nn.Module, config: UniAudioLMConfig, texts: HeldOutTexts, *, batch_size: int
) -> dict[str, Any]:
    """Perplexity on held-out texts; arguments as for `held_out_figures`."""
    totals, counts = _totals(accelerator, model, config, texts, range(len(texts)), batch_size)
    return perplexity_figures(float(totals[0]) / counts.text_targets, counts.text_targets)


def _totals(
    accelerator: Accelerator,
    model: nn.Module,
    config: UniAudioLMConfig,
    records: Records,
    usable: Sequence[int],
    batch_size: int,
) -> tuple[torch.Tensor, StreamCounts]:
    batches, shares = equal_shares(usable, batch_size, accelerator)
    device = accelerator.device
    totals = torch.zeros(1 + 2 * config.num_audio_streams, dtype=torch.float64, device=device)
    numbers = torch.zeros(3, dtype=torch.int64, device=device)
    model.eval()
    with torch.no_grad():
        for indexes, share in zip(batches, shares, strict=True):
            encoded = records.encode(indexes)
            counts = StreamCounts.of([encoded], accelerator, config)  # of all processes: they make equally many pieces
            chunks = num_chunks(counts.most_text_targets[0], config.text_config.vocab_size)
            sums = model(**inputs_of(encoded, config, packed=False, device=device), num_chunks=chunks)
            totals += share * sums.double()
            own = StreamCounts.alone(encoded, config)
            numbers += torch.tensor(own if share else (0, 0, 0), device=device)
    model.train()
    text, frames, learned = accelerator.reduce(numbers, "sum").tolist()
    return accelerator.reduce(totals, "sum"), StreamCounts(text, frames, learned, [])
