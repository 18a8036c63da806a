"""SQCodec equals the public implementation: latents, sound and the straight-through gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

from .tolerances import assert_near, read_meta, tolerance


@pytest.fixture(scope="module")
def io(sqcodec_folder: Path) -> dict[str, Tensor]:
    return load_file(sqcodec_folder / "io.safetensors")


@pytest.fixture(scope="module")
def meta(sqcodec_folder: Path) -> dict[str, Any]:
    return read_meta(sqcodec_folder)


@pytest.fixture(scope="module")
def model(sqcodec_folder: Path, meta: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> SQCodec:
    """Opened from the released layout."""
    folder = tmp_path_factory.mktemp("released")
    torch.save({"codec_model": load_file(sqcodec_folder / "model.safetensors")}, folder / "sqcodec.pth")
    (folder / "sqcodec_config.yaml").write_text(yaml.safe_dump({"generator": {"config": meta["config"]}}))
    opened = AudioTokenizer.from_pretrained(folder)
    assert isinstance(opened, SQCodec)
    return opened


@torch.no_grad()
def test_latents_equal_the_reference(model: SQCodec, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    latents = model.latents(io["waveform"][:, 0])
    assert_near(latents, io["latent"], exact_tolerance(meta, "latent"), "latent")
    rounded = (model.codes_of(io["latent"]) - 9) / 9
    assert_near(rounded, io["latent_rounded"], exact_tolerance(meta, "latent_rounded"), "latent_rounded")


def exact_tolerance(meta: dict[str, Any], key: str) -> dict[str, float]:
    """Of exactly that key."""
    return tolerance({"tolerance": {key: meta["tolerance"][key]}}, key)


@torch.no_grad()
def test_sound_equals_the_reference(model: SQCodec, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    near = tolerance(meta, "audio")
    assert_near(model.sound(io["latent"]), io["reconstruction"][:, 0], near, "reconstruction")
    assert_near(model.sound(io["free_latent"]), io["decoded"][:, 0], near, "decoded")
    assert_near(model(io["waveform"][:, 0]), io["forward"][:, 0], near, "forward")


def test_the_gradient_passes_the_rounding(model: SQCodec, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    waveform = io["waveform"].clone().requires_grad_()
    (model(waveform[:, 0]) * io["weight"][:, 0]).sum().backward()
    assert waveform.grad is not None
    assert_near(waveform.grad, io["grad_waveform"], tolerance(meta, "grad_waveform"), "grad_waveform")


def test_codes_are_the_levels_of_the_latents(model: SQCodec, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    waveforms = io["waveform"][:, 0]
    if waveforms.shape[1] % model.frame_samples:
        pytest.skip("the recorded clip holds no whole frames, which encode() makes of it")
    encoded = model.encode(waveforms, model.sample_rate)
    near = 10 * exact_tolerance(meta, "latent")["atol"]
    certain = ((io["latent"] * 9 - 0.5).remainder(1) - 0.5).abs() < 0.5 - near  # no border between levels is near
    assert certain.float().mean() > 0.99
    wanted = (io["latent_rounded"] * 9).round().long() + 9
    assert torch.equal(encoded.codes[certain], wanted[certain])
    assert encoded.lengths.tolist() == [model.num_frames(waveforms.shape[1], model.sample_rate)] * len(waveforms)


def test_names_and_shapes_are_the_released_ones(model: SQCodec, sqcodec_folder: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint() == model.fingerprint()
    names = model.released_names()
    stored = load_file(sqcodec_folder / "model.safetensors")
    assert {names[name]: one.shape for name, one in model.weights().items()} == {
        name: one.shape for name, one in stored.items()
    }
