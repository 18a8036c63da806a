"""Codebook training equals the reference's traces, in one process and in two."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer import Codebook

ATOL = 1e-5


def make_codebook(config: dict[str, Any]) -> Codebook:
    return Codebook(
        config["quantize_vocab_size"],
        config["d_model"],
        ema_decay=config["quantize_ema_decay"],
        restart_interval=config["quantize_restart_interval"],
        commit_coefficient=config["quantize_commit_coefficient"],
        loss_scale=config["quantize_loss_scale"],
    ).train()


@torch.no_grad()
def set_state(codebook: Codebook, trace: dict[str, Tensor]) -> None:
    codebook.weight.copy_(trace["init.codebook"])
    codebook.ema_count.copy_(trace["init.ema_count"])
    codebook.ema_weight.copy_(trace["init.ema_weight"])
    if "init.codebook_used" in trace:
        codebook.recent_codes.copy_(trace["init.codebook_used"])


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0, check_dtype=False)


def test_moving_averages_and_restarts_follow_the_trace(codebook_training_folder: Path) -> None:
    trace = load_file(codebook_training_folder / "io.safetensors")
    meta = json.loads((codebook_training_folder / "meta.json").read_text())
    config = meta["config"]["ema"]
    codebook = make_codebook(config)
    set_state(codebook, trace)
    random.seed(config["python_random_seed"])
    num_steps = sum(key.startswith("step") and key.endswith(".quantize_loss") for key in trace)
    for step in range(num_steps):
        recorded = {key.split(".", 1)[1]: value for key, value in trace.items() if key.startswith(f"step{step}.")}
        features = recorded["hidden_states"].clone().requires_grad_()
        positions = trace["embed_positions2.weight"].clone().requires_grad_()
        output = codebook(features, recorded["attention_mask"])
        assert output.loss is not None
        result = output.quantized + positions[: features.shape[1]]
        (output.loss + (result * recorded["output_weight"]).sum()).backward()
        assert torch.equal(output.codes, recorded["quantized_token_ids"])
        close(result, recorded["output"])
        close(output.loss, recorded["quantize_loss"][0])
        for name in ("ema_count", "ema_weight"):
            close(getattr(codebook, name), recorded[name])
        close(codebook.weight, recorded["codebook"])
        assert torch.equal(codebook.recent_codes, recorded["codebook_used"].long())
        assert features.grad is not None
        assert positions.grad is not None
        close(features.grad, recorded["grad_hidden_states"])
        close(positions.grad, recorded["grad_embed_positions2"])
        assert codebook.usage() == pytest.approx(meta["results"][f"step{step}"]["codebook_usage"])
        assert int(output.num_active) == meta["results"][f"step{step}"]["num_active_codes"]
        assert output.num_restarted == len(recorded["restart_choice"])


def test_codebook_trained_by_gradient_follows_the_trace(codebook_training_folder: Path) -> None:
    everything = load_file(codebook_training_folder / "io.safetensors")
    trace = {key.split(".", 1)[1]: value for key, value in everything.items() if key.startswith("gradient.")}
    meta = json.loads((codebook_training_folder / "meta.json").read_text())
    codebook = make_codebook(meta["config"]["gradient"])
    with torch.no_grad():
        codebook.weight.copy_(trace["codebook"])
    features = trace["hidden_states"].clone().requires_grad_()
    output = codebook(features, trace["attention_mask"])
    assert output.loss is not None
    result = output.quantized + trace["embed_positions2.weight"]
    (output.loss + (result * trace["output_weight"]).sum()).backward()
    assert torch.equal(output.codes, trace["quantized_token_ids"])
    assert features.grad is not None
    assert codebook.weight.grad is not None
    close(output.loss, trace["quantize_loss"][0])
    close(result, trace["output"])
    close(features.grad, trace["grad_hidden_states"])
    close(codebook.weight.grad, trace["grad_codebook"])
    close(codebook.weight, trace["codebook"])


def follow_two_rank_trace(rank: int, folder: Path) -> None:
    trace = load_file(folder / "two_ranks.safetensors")
    meta = json.loads((folder / "two_ranks.json").read_text())
    codebook = make_codebook(meta["config"])
    set_state(codebook, trace)
    random.seed(meta["config"]["python_random_seed"][f"rank{rank}"])
    for step in range(len(meta["results"]["rank0"])):
        own = f"step{step}.rank{rank}"
        output = codebook(trace[f"{own}.hidden_states"], trace[f"{own}.attention_mask"])
        assert torch.equal(output.codes, trace[f"{own}.quantized_token_ids"])
        close(output.loss, trace[f"{own}.quantize_loss"][0])
        assert torch.equal(codebook.recent_codes, trace[f"{own}.codebook_used"].long())
        close(codebook.weight, trace[f"step{step}.codebook"])
        close(codebook.ema_count, trace[f"step{step}.ema_count"])
        close(codebook.ema_weight, trace[f"step{step}.ema_weight"])
        assert codebook.usage() == pytest.approx(meta["results"][f"rank{rank}"][f"step{step}"]["codebook_usage"])


@pytest.mark.multiprocess
def test_two_processes_follow_the_trace(codebook_training_folder: Path, in_two_processes: Callable[..., None]) -> None:
    in_two_processes(follow_two_rank_trace, codebook_training_folder)
