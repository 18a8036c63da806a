"""What finished trainings left behind, for comparing one with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from audiollm.training.loop.record import read_metrics
from audiollm.training.results.figures import flat_numbers

# What depends on the machine and not on the run.
MACHINE = (
    "seconds", "data_seconds", "processor_seconds", "tokens_per_second", "mel_frames_per_second",
    "audio_seconds_per_second", "memory_mb",
)  # fmt: skip
# What depends on how an update is cut into passes.
PASSES = ("padding_share", "packed_share")


def metrics_of(run: Path | str, event: str | None = "train") -> list[dict[str, Any]]:
    """The lines of one kind, or all, without what depends on the machine's speed."""
    lines = [line for line in read_metrics(Path(run) / "metrics.jsonl") if event in (None, line["event"])]
    return [{name: value for name, value in line.items() if name not in MACHINE + PASSES} for line in lines]


def weights_of(run: Path | str, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "model" / name)


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def assert_near_tokenizer(first: Path, second: Path) -> None:
    """Metrics and weights are the same but for the order of sums."""
    for line, other in zip(metrics_of(first), metrics_of(second), strict=True):
        assert flat_numbers(line) == pytest.approx(flat_numbers(other), rel=2e-3, abs=1e-6)
    others = weights_of(second)
    for name, tensor in weights_of(first).items():
        if name.endswith("codebook_used"):  # which codes, not in which order
            assert set(tensor.tolist()) == set(others[name].tolist())
        else:
            torch.testing.assert_close(tensor, others[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def assert_near_flow(first: Path, second: Path) -> None:
    for line, other in zip(metrics_of(first), metrics_of(second), strict=True):
        assert line.pop("event") == other.pop("event")
        assert line == pytest.approx(other, rel=1e-3)
    for name, tensor in weights_of(first, "flow.safetensors").items():
        torch.testing.assert_close(tensor, weights_of(second, "flow.safetensors")[name], rtol=1e-3, atol=1e-4)


def checkpoint_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Everything that was trained: the vocoder and the discriminators."""
    folder = run / "checkpoints" / f"step_{step:06d}"
    weights = load_file(folder / "weights.safetensors")
    if (folder / "discriminators.pt").exists():
        judges = torch.load(folder / "discriminators.pt", weights_only=True)
        weights |= {f"discriminators.{name}": tensor for name, tensor in judges.items()}
    return weights


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


def assert_same_parts(first: Path, second: Path) -> None:
    """Two checkpoints hold the same bits: weights, optimizers, averages, states of random generators."""
    assert_equal(load_file(first / "weights.safetensors"), load_file(second / "weights.safetensors"))
    names = sorted(path.name for path in first.glob("*.pt"))
    assert names == sorted(path.name for path in second.glob("*.pt"))
    for name in names:
        one, other = (torch.load(folder / name, weights_only=True) for folder in (first, second))
        assert are_same(one, other), name


def are_same(one: Any, other: Any) -> bool:
    """Whether nested values have the same names, the same tensors to the bit, and are equal otherwise."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(are_same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def assert_near_vocoder(first: Path, second: Path) -> None:
    for line, other in zip(metrics_of(first), metrics_of(second), strict=True):
        assert line.pop("event") == other.pop("event")
        assert line == pytest.approx(other, rel=2e-3, abs=1e-4)
