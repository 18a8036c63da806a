"""Several processes train one codebook: all end each step with identical buffers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from audiollm.tokenizer import Codebook, UniAudioTokenizer, UniAudioTokenizerConfig

pytestmark = pytest.mark.multiprocess


def train_with_uneven_ranks(rank: int, folder: Path) -> None:
    """Rows that do not divide by two, and a rank whose last batches are all padding."""
    torch.manual_seed(0)
    codebook = Codebook(7, 4, ema_decay=0.5, restart_interval=1).train()
    with torch.no_grad():
        codebook.weight[[0, 6]] = 1000.0  # two dead rows; the last belongs to nobody's equal share
        codebook.reset_statistics()
        codebook.ema_count[[0, 6]] = 0.1
    generator = torch.Generator().manual_seed(rank)
    restarted = 0
    for step in range(4):
        features = torch.randn(2, 3 + rank, 4, generator=generator)
        mask = torch.ones(2, 3 + rank, dtype=torch.int64)
        if rank == 1 and step >= 2:
            mask.zero_()
        output = codebook(features, mask)
        restarted += output.num_restarted
        assert output.loss is not None
        assert torch.isfinite(output.loss)
    torch.save({**codebook.state_dict(), "restarted": restarted}, folder / f"rank{rank}.pt")


def load_ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_all_processes_hold_identical_buffers(tmp_path: Path, in_two_processes: Callable[..., None]) -> None:
    in_two_processes(train_with_uneven_ranks, tmp_path)
    first, second = load_ranks(tmp_path)
    for name in ("weight", "ema_count", "ema_weight", "num_updates"):
        assert torch.equal(first[name], second[name]), name
    assert first["restarted"] == second["restarted"] >= 2
    assert first["weight"].abs().max() < 10  # both dead rows are back among the features


def tiny_tokenizer() -> UniAudioTokenizer:
    torch.manual_seed(0)
    config = UniAudioTokenizerConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        num_mel_bins=80,
        max_source_positions=40,
        pooling_kernel_size=2,
        quantize_position=1,
        quantize_vocab_size=9,
        quantize_ema_decay=0.8,
        quantize_restart_interval=2,
        init_std=0.3,
    )
    return UniAudioTokenizer(config).train()


def batch_of(rank: int, step: int) -> torch.Tensor:
    return torch.randn(2, 80, 40, generator=torch.Generator().manual_seed(10 * step + rank))


def train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, features: torch.Tensor) -> None:
    output = model(features, torch.ones(len(features), 40))
    (output.quantizer_loss + output.last_hidden_state.square().mean()).backward()
    optimizer.step()
    optimizer.zero_grad()


def train_under_ddp(rank: int, folder: Path) -> None:
    model = tiny_tokenizer()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for step in range(3):
        train_step(wrapped, optimizer, batch_of(rank, step))
    torch.save(model.state_dict(), folder / f"rank{rank}.pt")


def test_ddp_keeps_the_whole_tokenizer_equal(tmp_path: Path, in_two_processes: Callable[..., None]) -> None:
    in_two_processes(train_under_ddp, tmp_path)
    first, second = load_ranks(tmp_path)
    for name in first.keys() - {"codebook.recent_codes"}:
        assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["codebook.recent_codes"], second["codebook.recent_codes"])


def test_two_processes_learn_what_one_learns_from_both_batches(
    tmp_path: Path, in_two_processes: Callable[..., None]
) -> None:
    """Up to the first restart, whose rows each process draws from its own batch."""
    in_two_processes(train_under_ddp_for_one_step, tmp_path)
    two = load_ranks(tmp_path)[0]
    model = tiny_tokenizer()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    train_step(model, optimizer, torch.cat([batch_of(0, 0), batch_of(1, 0)]))
    for name, value in model.state_dict().items():
        if name != "codebook.recent_codes":
            torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0, msg=name)


def train_under_ddp_for_one_step(rank: int, folder: Path) -> None:
    model = tiny_tokenizer()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    train_step(DistributedDataParallel(model, broadcast_buffers=False), optimizer, batch_of(rank, 0))
    torch.save(model.state_dict(), folder / f"rank{rank}.pt")
