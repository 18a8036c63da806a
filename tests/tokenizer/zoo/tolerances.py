"""How close to recorded values is close enough, as the folder they lie in says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_meta(folder: Path) -> dict[str, Any]:
    """What ``meta.json`` of a folder of parity data says."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return meta


def tolerance(meta: dict[str, Any], about: str) -> dict[str, float]:
    """``rtol`` and ``atol`` that ``meta.json`` gives under the key that contains some words, such as "atol 1e-4"."""
    (text,) = (text for key, text in meta["tolerance"].items() if about in key)
    found = {name: float(value) for name, value in re.findall(r"(rtol|atol) ([\d.e-]+\d)", text)}
    assert found, f"no tolerance in {text!r}"
    return {"rtol": 0.0, "atol": 0.0, **found}


def assert_near(actual: Tensor, wanted: Tensor, tolerance: dict[str, float], name: str = "") -> None:
    """Compares all values; ``name`` says in an error what they are."""
    torch.testing.assert_close(actual.detach(), wanted, **tolerance, msg=lambda message: f"{name}: {message}")
