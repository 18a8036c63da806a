"""CosyVoice2's speech tokenizer equals its torch port: codes where rounding cannot decide, values within theirs."""

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
from audiollm.tokenizer.zoo.cosyvoice2.encoder import num_tokens
from audiollm.tokenizer.zoo.cosyvoice2.model import CosyVoice2Tokenizer, sizes_of
from audiollm.tokenizer.zoo.cosyvoice2.windows import merge, windows
from tests.tokenizer.zoo.tolerances import assert_near, read_meta, tolerance


@pytest.fixture(scope="module")
def io(cosyvoice2_tokenizer_folder: Path) -> dict[str, Tensor]:
    return load_file(cosyvoice2_tokenizer_folder / "io.safetensors")


@pytest.fixture(scope="module")
def meta(cosyvoice2_tokenizer_folder: Path) -> dict[str, Any]:
    return read_meta(cosyvoice2_tokenizer_folder)


@pytest.fixture(scope="module")
def model(cosyvoice2_tokenizer_folder: Path) -> CosyVoice2Tokenizer:
    opened = AudioTokenizer.from_pretrained(cosyvoice2_tokenizer_folder)
    assert isinstance(opened, CosyVoice2Tokenizer)
    return opened


def waveforms_of(io: dict[str, Tensor]) -> list[Tensor]:
    return [io[f"{name}_int16"].float() / 32768 for name in ("speech", "music")]


def assert_same_codes(found: Tensor, expected: Tensor, margin: Tensor, meta: dict[str, Any]) -> None:
    """Equal wherever the values are farther from a border between two levels than rounding reaches."""
    least = float(re.findall(r"margin > ([\d.e-]+\d)", meta["tolerance"]["codes"])[0])
    sure = margin > least
    assert sure.float().mean() > 0.9
    assert torch.equal(found[sure], expected[sure].long())


def test_log_mel_equals_the_reference(model: CosyVoice2Tokenizer, io: dict[str, Tensor], meta: dict[str, Any]) -> None:
    features = model.features(waveforms_of(io)[0])
    assert_near(features, io["speech.log_mel"], tolerance(meta, "speech.log_mel"))


@torch.no_grad()
def test_a_padded_batch_equals_the_reference(
    model: CosyVoice2Tokenizer, io: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    rows = [model.features(waveform) for waveform in waveforms_of(io)]
    lengths = io["batch.mel_lengths"].long()
    assert [row.shape[1] for row in rows] == lengths.tolist()
    batch = torch.nn.utils.rnn.pad_sequence([row.t() for row in rows], batch_first=True).transpose(1, 2)
    codes, hidden = model(batch, lengths)
    projected = model.codebook.project(hidden)
    margin = (model.codebook.bound(projected).abs() - 0.5).abs().amin(dim=-1)
    for row, count in enumerate(io["batch.code_lengths"].tolist()):
        assert count == num_tokens(int(lengths[row]))
        for name, values in (("hidden", hidden), ("projected", projected), ("margin", margin)):
            allowed = tolerance(meta, "batch.hidden")
            assert_near(values[row, :count], io[f"batch.{name}"][row, :count], allowed, name)
        assert_same_codes(codes[row, :count], io["batch.codes"][row, :count], io["batch.margin"][row, :count], meta)


def test_clips_of_unequal_length_give_the_codes_of_each_alone(
    model: CosyVoice2Tokenizer, io: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    codes = model.encode(waveforms_of(io), 16000)
    assert codes.lengths.tolist() == io["batch.code_lengths"].tolist()
    for row, count in enumerate(codes.lengths.tolist()):
        assert_same_codes(codes[row][0], io["batch.codes"][row, :count], io["batch.margin"][row, :count], meta)
    count = io["music_alone.codes"].shape[1]
    assert_same_codes(codes[1][0], io["music_alone.codes"][0], io["batch.margin"][1, :count], meta)


@torch.no_grad()
def test_long_clips_equal_the_reference(
    model: CosyVoice2Tokenizer, io: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    """A long clip and a short one; how they were made is in ``meta.json``."""
    lengths = meta["long_case"]["lengths"]
    loud_first, loud_last = (
        float(one) for one in re.findall(r"linspace\(([\d.]+), ([\d.]+), \d+\)", meta["long_case"]["row0"])[0]
    )
    rows = [
        _repeated(io["speech.log_mel"], lengths[0]) * torch.linspace(loud_first, loud_last, lengths[0]),
        _repeated(model.features(waveforms_of(io)[1]), lengths[1]),
    ]
    for row, features in enumerate(rows):
        found = merge([model(features[None, :, first:last])[0][0] for first, last in windows(features.shape[1])])
        count = int(io["long.code_lengths"][row])
        assert len(found) == num_tokens(features.shape[1])
        assert len(found) >= count  # the published code loses some where a window begins in another's last 4 s
        assert_same_codes(found[:count], io["long.codes"][row, :count], io["long.margin"][row, :count], meta)


def _repeated(features_MF: Tensor, num_frames: int) -> Tensor:
    return features_MF.repeat(1, -(-num_frames // features_MF.shape[1]))[:, :num_frames]


def test_windows_are_merged_as_the_reference_does(io: dict[str, Tensor]) -> None:
    names = [name for name in io if name.startswith("merge.")]
    if not names:
        pytest.skip("there is none")
    for name in names:
        counts = [int(part) for part in name.removeprefix("merge.").split("_")]
        parts = [torch.arange(count) + 1000 * (place + 1) for place, count in enumerate(counts)]
        assert torch.equal(merge(parts), io[name])


def test_a_model_of_released_size_has_the_released_names_and_shapes(cosyvoice2_tokenizer_folder: Path) -> None:
    paths = list(cosyvoice2_tokenizer_folder.glob("full_size_state_dict_keys*.json"))
    if not paths:
        pytest.skip(f"{cosyvoice2_tokenizer_folder.name} lists none")
    for path in paths:
        listed = {name: shape for name, (shape, _) in json.loads(path.read_text(encoding="utf-8")).items()}
        with torch.device("meta"):
            model = CosyVoice2Tokenizer(**sizes_of(listed, path))
        assert {name: list(one.shape) for name, one in model.state_dict().items()} == listed


def test_sizes_are_those_of_the_folder(model: CosyVoice2Tokenizer, meta: dict[str, Any]) -> None:
    sizes = meta["sizes"]
    assert model.codebook_size == sizes["codebook_size"]
    assert model.sizes["num_mel_bins"] == sizes["n_mels"]
    assert (model.sizes["size"], model.sizes["num_blocks"]) == (sizes["n_audio_state"], sizes["n_audio_layer"])
