"""The raw forward equals the reference on every encoder variant: codes exactly, values within float32 rounding."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerOutput
from audiollm.tokenizer.configuration import HOP_LENGTH

CASES = {"batch": ["speech", "music", "noise"], "single": ["noise"], "short": ["short", "noise"], "odd": []}
HIDDEN_ATOL, GATE_ATOL = 1e-4, 1e-5


def features_of(case: str, io: dict[str, Tensor], clips: dict[str, Tensor], model: UniAudioTokenizer) -> Tensor:
    """The recorded features, or those of the padded clips as the reference batches them."""
    if f"{case}.input_features" in io:
        return io[f"{case}.input_features"]
    waveforms = torch.zeros(len(CASES[case]), io[f"{case}.attention_mask"].shape[1] * HOP_LENGTH)
    for row, name in enumerate(CASES[case]):
        waveforms[row, : len(clips[name])] = clips[name]
    return model.log_mel(waveforms)


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_reference(encoder_variant: str, case: str, parity: Path, clips: dict[str, Tensor]) -> None:
    io = load_file(parity / encoder_variant / "io.safetensors")
    if f"{case}.quantized_token_ids" not in io:
        pytest.skip(f"{encoder_variant} has no case {case}")
    model = UniAudioTokenizer.from_pretrained(parity / encoder_variant)
    with torch.no_grad():
        output = model(features_of(case, io, clips, model), io[f"{case}.attention_mask"])
    assert torch.equal(output.codes, io[f"{case}.quantized_token_ids"])
    for name in ("last_hidden_state", "pre_quantizer_hidden"):
        torch.testing.assert_close(getattr(output, name), io[f"{case}.{name}"], atol=HIDDEN_ATOL, rtol=0)
    assert_gate_equal(output, io[f"{case}.residual_gamma_mean"])


def assert_gate_equal(output: UniAudioTokenizerOutput, expected: Tensor) -> None:
    if math.isnan(float(expected)):
        assert output.gate_mean is None
    else:
        assert output.gate_mean is not None
        assert float(output.gate_mean) == pytest.approx(float(expected), abs=GATE_ATOL)


def test_given_codes_replace_the_search(encoder_variant: str, parity: Path) -> None:
    io = load_file(parity / encoder_variant / "io.safetensors")
    if "forced.quantized_token_ids" not in io:
        pytest.skip(f"{encoder_variant} has no forced case")
    model = UniAudioTokenizer.from_pretrained(parity / encoder_variant)
    forced = io["forced.quantized_token_ids"]
    with torch.no_grad():
        output = model(io["odd.input_features"], io["odd.attention_mask"], codes=forced)
    assert torch.equal(output.codes, forced)
    torch.testing.assert_close(output.last_hidden_state, io["forced.last_hidden_state"], atol=HIDDEN_ATOL, rtol=0)


def test_distance_gap_equals_the_reference(encoder_variant: str, parity: Path, clips: dict[str, Tensor]) -> None:
    io = load_file(parity / encoder_variant / "io.safetensors")
    model = UniAudioTokenizer.from_pretrained(parity / encoder_variant)
    with torch.no_grad():
        hidden = model.pre_quantizer_features(features_of("batch", io, clips, model), io["batch.attention_mask"])
        distances = torch.cdist(hidden.double(), model.codebook.weight.double()) ** 2
    nearest, second = distances.topk(2, largest=False).values.unbind(-1)
    torch.testing.assert_close((second - nearest).float(), io["batch.top2_distance_gap"], atol=1e-2, rtol=1e-3)


def test_hidden_states_of_each_layer_equal_the_reference(encoder_variant: str, parity: Path) -> None:
    folder = parity / encoder_variant
    io = load_file(folder / "io.safetensors")
    if "single.hidden_states" not in io:
        pytest.skip(f"{encoder_variant} holds none")
    model = UniAudioTokenizer.from_pretrained(folder)
    with torch.no_grad():
        output = model(io["single.input_features"], io["single.attention_mask"], output_hidden_states=True)
    assert output.hidden_states is not None
    torch.testing.assert_close(torch.stack(output.hidden_states), io["single.hidden_states"], atol=1e-4, rtol=0)


def test_log_mel_equals_the_reference(encoder_variant: str, parity: Path, clips: dict[str, Tensor]) -> None:
    folder = parity / encoder_variant
    io = load_file(folder / "io.safetensors")
    recorded = {key: io.pop(key) for key in list(io) if key.endswith("input_features") and not key.startswith("odd")}
    if not recorded:
        pytest.skip(f"{encoder_variant} holds none")
    model = UniAudioTokenizer.from_pretrained(folder)
    for key, expected in recorded.items():
        features = features_of(key.split(".")[0], io, clips, model)
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)
