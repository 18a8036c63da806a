"""What finished trainings left behind, for comparing one with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from audiollm.training.loop.record import read_metrics

# What depends on the machine and not on the run.
MACHINE = ("seconds", "tokens_per_second", "mel_frames_per_second", "audio_seconds_per_second", "memory_mb")


def metrics_of(run: Path | str, event: str | None = "train") -> list[dict[str, Any]]:
    """The lines of one kind, or all, without what depends on the machine's speed."""
    lines = [line for line in read_metrics(Path(run) / "metrics.jsonl") if event in (None, line["event"])]
    return [{name: value for name, value in line.items() if name not in MACHINE} for line in lines]


def weights_of(run: Path | str, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "model" / name)


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
