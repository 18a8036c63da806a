"""The folder of the model that ships: weights are rewritten whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiollm.training.recipes.mini import package


def test_weights_are_shrunk_in_place_and_an_error_leaves_the_old_ones(tmp_path, monkeypatch):
    save_file({"a": torch.ones(2), "left_out": torch.ones(1)}, tmp_path / "model.safetensors")
    package.shrink_weights(tmp_path, ("left_out",))
    assert {name: tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items()} == {
        "a": torch.float16
    }
    before = (tmp_path / "model.safetensors").read_bytes()

    def write_half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(package, "save_file", write_half)
    with pytest.raises(OSError, match="disk full"):
        package.shrink_weights(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_what_float16_has_no_place_for_is_named_and_nothing_written(tmp_path, value):
    save_file({"a": torch.ones(2), "broken": torch.tensor([value])}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"model\.safetensors holds NaN or infinity in broken"):
        package.shrink_weights(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_cut_weights_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 30)
    with pytest.raises(ValueError, match=r"model\.safetensors is cut off or damaged"):
        package.shrink_weights(tmp_path)
