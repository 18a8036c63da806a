"""StableToken equals the reference: codes exactly, values within its rounding, and losses with their gradients."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.names import released_name
from audiollm.tokenizer.configuration import HOP_LENGTH
from audiollm.tokenizer.quantizer.lfq import VotingLFQ
from audiollm.tokenizer.zoo.stabletoken.configuration import StableTokenConfig
from audiollm.tokenizer.zoo.stabletoken.model import StableToken
from tests.tokenizer.zoo.tolerances import assert_near, read_meta, tolerance

HIDDEN = {
    "pre_quantizer_hidden": "pre_quantizer_hidden",
    "voter_projections": "voter_projections",
    "quantizer_output": "quantizer_output",
    "last_hidden_state": "last_hidden_state",
}
SURE_PROJECTION = 1e-3  # below it, what float32 rounds in the features may decide a voter's bit
LOSSES = ("per_sample_entropy", "codebook_entropy", "commitment_loss", "consensus_loss")


@pytest.fixture(scope="module")
def io(stabletoken_folder: Path) -> dict[str, Tensor]:
    return load_file(stabletoken_folder / "io.safetensors")


@pytest.fixture(scope="module")
def meta(stabletoken_folder: Path) -> dict[str, Any]:
    return read_meta(stabletoken_folder)


@pytest.fixture(scope="module")
def model(stabletoken_folder: Path) -> StableToken:
    opened = AudioTokenizer.from_pretrained(stabletoken_folder)
    assert isinstance(opened, StableToken)
    return opened


def cases_of(io: dict[str, Tensor]) -> list[str]:
    cases = sorted(name.removesuffix(".input_features") for name in io if name.endswith(".input_features"))
    assert cases
    return cases


@torch.no_grad()
def test_forward_equals_the_reference(model: StableToken, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    for case in cases_of(io):
        output = model(io[f"{case}.input_features"], io[f"{case}.attention_mask"])
        assert torch.equal(output.codes, io[f"{case}.quantized_token_ids"])
        for name, recorded in HIDDEN.items():
            assert_near(output[name], io[f"{case}.{recorded}"], tolerance(meta, "hidden states"), f"{case}.{name}")


@torch.no_grad()
def test_codes_alone_are_those_of_forward(model: StableToken, io: dict[str, Tensor]) -> None:
    for case in cases_of(io):
        hidden = model.pre_quantizer_features(io[f"{case}.input_features"], io[f"{case}.attention_mask"])
        assert torch.equal(model.codebook.encode(hidden), io[f"{case}.ids_only"])


@torch.no_grad()
def test_codes_become_what_the_quantizer_gave(model: StableToken, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    for case in cases_of(io):
        found = model.codebook.lookup(io[f"{case}.quantized_token_ids"])
        assert_near(found, io[f"{case}.quantizer_output"], tolerance(meta, "hidden states"), case)


@torch.no_grad()
def test_distance_to_another_vote_equals_the_reference(
    model: StableToken, io: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    for case in cases_of(io):
        if f"{case}.min_abs_projection" not in io:
            continue
        output = model(io[f"{case}.input_features"], io[f"{case}.attention_mask"])
        nearest = output.voter_projections.abs().amin(dim=(0, -1))
        assert_near(nearest, io[f"{case}.min_abs_projection"], tolerance(meta, "hidden states"), case)


def padded_as_one_batch(model: StableToken, waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Waveforms ``[B, N]`` filled with silence to whole codes of the longest, and the mask of their mel frames."""
    longest = max(len(waveform) for waveform in waveforms)
    rows = torch.zeros(len(waveforms), -(-longest // model.frame_samples) * model.frame_samples)
    mask = torch.zeros_like(rows, dtype=torch.int64)
    for row, waveform in enumerate(waveforms):
        rows[row, : len(waveform)], mask[row, : len(waveform)] = waveform, 1
    return rows, mask[:, ::HOP_LENGTH]


@torch.no_grad()
def test_recordings_give_the_recorded_features_and_codes(
    model: StableToken, io: dict[str, Tensor], meta: dict[str, Any], clips: dict[str, Tensor]
) -> None:
    padded, mask = padded_as_one_batch(model, [clips[name] for name in recorded_clips(meta)])
    features = model.log_mel(padded)
    torch.testing.assert_close(features, io["batch.input_features"], atol=1e-4, rtol=0)
    assert torch.equal(mask, io["batch.attention_mask"].long())
    sure = io["batch.voter_projections"].abs().amin(dim=(0, -1)) > SURE_PROJECTION
    assert torch.equal(model(features, mask).codes[sure], io["batch.quantized_token_ids"][sure])


@torch.no_grad()
def test_recordings_of_unequal_length_give_what_each_gives_alone(
    model: StableToken, meta: dict[str, Any], clips: dict[str, Tensor]
) -> None:
    """Not what the recorded batch gives, in which each frame heard the silence that fills the shorter clips."""
    waveforms = [clips[name] for name in recorded_clips(meta)]
    codes = model.encode(waveforms, 16000)
    for row, waveform in enumerate(waveforms):
        padded, mask = padded_as_one_batch(model, [waveform])
        alone = model(model.log_mel(padded), mask)
        assert alone.codes is not None
        assert alone.voter_projections is not None
        sure = alone.voter_projections.abs().amin(dim=(0, -1)) > SURE_PROJECTION
        assert torch.equal(codes[row][sure], alone.codes[sure])


def recorded_clips(meta: dict[str, Any]) -> list[str]:
    """Names of the recordings in the case "batch"; notes may follow them."""
    return [re.split(r"\W", name)[0] for name in meta["clips"]]


# --------------------------------------------------------------------- training


def test_losses_and_gradients_equal_the_reference(
    stabletoken_folder: Path, model: StableToken, io: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    config = StableTokenConfig(**json.loads((stabletoken_folder / "config.json").read_text(encoding="utf-8")))
    quantizer = VotingLFQ(
        config.quantize_vocab_size,
        config.d_model,
        num_voters=config.num_voters,
        num_clean=config.num_clean_input,
        bias=config.use_projection_bias,
        **weights_of_losses(meta),
    )
    quantizer.load_state_dict(model.codebook.state_dict())
    clean, noisy = (io[f"train.{name}"].clone().requires_grad_() for name in ("clean", "noisy"))
    output = quantizer.train()(clean, io["train.mask"], noisy, io["train.voter_order"])
    assert torch.equal(output.codes, io["train.ids"])
    assert_near(output.quantized, io["train.output"], tolerance(meta, "hidden states"), "output")
    # The recorded number was rounded as well: it differs so much from the same in float64.
    rounding = {name.removeprefix("train."): value for name, value in meta["float32_vs_float64_max_abs"].items()}
    for name in LOSSES:
        allowed = tolerance(meta, "losses")
        allowed["atol"] += rounding.get(name, 0.0)
        assert_near(getattr(output, name).view(1), io[f"train.{name}"], allowed, name)
    loss = output.loss + (output.quantized * io["train.weight"]).sum()
    allowed = tolerance(meta, "losses")
    allowed["atol"] += rounding.get("loss", 0.0)
    assert_near(loss.view(1), io["train.loss"], allowed, "loss")
    loss.backward()
    for name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None
        assert_near(parameter.grad, io[f"train.grad.{name}"], tolerance(meta, "grad"), name)
    for name, features in (("grad_clean", clean), ("grad_noisy", noisy)):
        assert features.grad is not None
        assert_near(features.grad, io[f"train.{name}"], tolerance(meta, "grad"), name)


def weights_of_losses(meta: dict[str, Any]) -> dict[str, float]:
    """Read out of the formula in ``meta.json``, which may be another one than the config's."""
    number = r"([\d.]+)"
    formula = rf"{number}\*\(per_sample_entropy - codebook_entropy\) \+ {number}\*commitment \+ {number}\*consensus"
    entropy, commitment, consensus = (float(one) for one in re.findall(formula, meta["train"]["loss"])[0])
    return {
        "sample_weight": entropy,
        "batch_weight": entropy,
        "commitment_weight": commitment,
        "consensus_weight": consensus,
    }


# ------------------------------------------------------------------------ files


def test_a_model_of_released_size_has_the_released_names_and_shapes(stabletoken_folder: Path) -> None:
    paths = list(stabletoken_folder.glob("full_size_state_dict_keys*.json"))
    if not paths:
        pytest.skip(f"{stabletoken_folder.name} lists none")
    for path in paths:
        listed = {name: shape for name, (shape, _) in json.loads(path.read_text(encoding="utf-8")).items()}
        num_layers = len({name.split(".")[1] for name in listed if name.startswith("layers.")})
        config = StableTokenConfig(
            d_model=listed["conv1.weight"][0],
            num_mel_bins=listed["conv1.weight"][1],
            encoder_ffn_dim=listed["layers.0.fc1.weight"][0],
            encoder_layers=num_layers,
            quantize_position=num_layers,
            pooling_position=num_layers,
            max_source_positions=listed["embed_positions.weight"][0],
            quantize_vocab_size=2 ** listed["quantizer.project_out.weight"][1],
            num_voters=sum(bool(re.fullmatch(r"quantizer\.project_in\.\d+\.weight", name)) for name in listed),
        )
        with torch.device("meta"):
            model = StableToken(config)
        assert {released_name(name): list(one.shape) for name, one in model.state_dict().items()} == listed


def test_saving_writes_the_released_layout(stabletoken_folder: Path, model: StableToken, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    written, released = (load_file(folder / "model.safetensors") for folder in (tmp_path, stabletoken_folder))
    assert written.keys() == released.keys()
    assert all(torch.equal(written[name], released[name].to(written[name].dtype)) for name in released)
    values, theirs = (
        json.loads((one / "config.json").read_text(encoding="utf-8")) for one in (tmp_path, stabletoken_folder)
    )
    assert {name: values[name] for name in theirs if name in values and name != "transformers_version"} == {
        name: value for name, value in theirs.items() if name in values and name != "transformers_version"
    }
    assert {"num_voters", "quantize_vocab_size", "pooling_kernel_size", "encoder_causal_convolution"} <= values.keys()
    assert (
        json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))["feature_size"]
        == values["num_mel_bins"]
    )
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint() == model.fingerprint()
