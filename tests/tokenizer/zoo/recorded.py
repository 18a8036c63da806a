"""A folder of parity data: what the public code made of a tiny tokenizer, and how near it is to be met."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


class Recorded:
    """Inputs, expected outputs and tolerances of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.io = load_file(folder / "io.safetensors")

    @cached_property
    def meta(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        return values

    def atol(self, name: str) -> float:
        """What ``meta.json`` allows for a value: its ``tolerance`` has a text for one name or several."""
        for names, allowed in self.meta["tolerance"].items():
            if name in re.split(r",\s*", names):
                return float(str(allowed).removeprefix("atol "))
        raise KeyError(f"no tolerance for {name} in {self.folder.name}/meta.json")

    def waveform(self, name: str) -> Tensor:
        """Stored as int16; float32 in [-1, 1], ``[B, N]``."""
        return self.io[name].float() / 32768

    def assert_close(self, found: Tensor, name: str, like: str | None = None) -> None:
        """``like``: whose tolerance it has; its own if None."""
        torch.testing.assert_close(found, self.io[name], atol=self.atol(like or name), rtol=0)


def released_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes by name from a list of the tensors of a released checkpoint."""
    return {name: shape for name, (shape, _) in json.loads(path.read_text()).items()}
