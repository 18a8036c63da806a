"""One half of a decoder, as its training leaves it, is read whole or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.training.decoder.parts import join_decoder, load_part, save_part

from ..conftest import tiny_decoder


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    config = tiny_decoder()
    decoder = WaveformDecoder(config)
    save_part(tmp_path / "flow" / "model", "flow", config, decoder.flow.state_dict())
    return tmp_path / "flow"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder_proj.bias"), r"missing: encoder_proj\.bias"),
        (lambda t: t.update(other=torch.zeros(1)), "unknown: other"),
        (lambda t: t.update({"encoder_proj.bias": torch.zeros(3)}), r"encoder_proj\.bias \[3\] instead of"),
        (lambda t: t["encoder_proj.bias"].fill_(torch.nan), r"NaN or infinity in encoder_proj\.bias"),
    ],
)
def test_weights_that_are_not_its_own_are_named(flow: Path, tmp_path: Path, change, message):
    path = flow / "model" / "flow.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=message):
        load_part(flow, "flow")
    with pytest.raises(ValueError, match=message):
        join_decoder(flow, flow, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"flow": 3}'])
def test_damaged_settings_are_named(flow: Path, content: str):
    (flow / "model" / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_part(flow, "flow")


def test_more_layers_than_any_decoder_has_are_refused(flow: Path):
    path = flow / "model" / "config.json"
    sizes = json.loads(path.read_text())
    sizes["flow"]["estimator"]["num_mid_stages"] = 10**9
    path.write_text(json.dumps(sizes))
    with pytest.raises(ValueError, match="1000000000"):
        load_part(flow, "flow")
