"""The recorded decoder: a release that a test may spoil, and what it makes of some codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import WaveformDecoder

FIXTURES = Path(__file__).parents[2] / "fixtures" / "parity" / "decoder"
RELEASED_FILES = ("config.yaml", "flow.pt", "hift.pt")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A released decoder that a test may spoil."""
    folder = tmp_path / "release" / "decoder"
    folder.mkdir(parents=True)
    for name in RELEASED_FILES:
        shutil.copy(FIXTURES / name, folder)
    return folder


@pytest.fixture(scope="session")
def expected() -> Tensor:
    """What the recorded decoder makes of the codes that the tests of its files decode, in two steps."""
    (waveform,) = WaveformDecoder.from_pretrained(FIXTURES).decode(torch.tensor([[3, 60, 17, 17, 0, 42]]), steps=2)
    return waveform
