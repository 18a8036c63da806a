"""WavTokenizer equals the public implementation: codes exactly, values within the folder's tolerances."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from audiollm.tokenizer.zoo.settings import settings_as
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig, shape_values
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer, kept_names

from .recorded import Recorded, released_shapes

CASES = ("", "short.")


@pytest.fixture(scope="module")
def recorded(wavtokenizer_folder: Path) -> Recorded:
    return Recorded(wavtokenizer_folder)


@pytest.fixture(scope="module")
def model(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> WavTokenizer:
    """Read with the YAML that a release has: no tensor tells the sample rate and the padding."""
    folder = tmp_path_factory.mktemp("released")
    shutil.copy(recorded.folder / "model.safetensors", folder)
    sizes = recorded.meta["sizes"]
    head = {name: sizes["head"][name] for name in ("n_fft", "hop_length", "padding")}
    encoder = {"dowmsamples": sizes["downsamples"], "vq_bins": sizes["vq_bins"]}
    parts = {"feature_extractor": encoder, "backbone": sizes["backbone"], "head": head}
    init_args = {"sample_rate": sizes["sample_rate"], **{name: {"init_args": part} for name, part in parts.items()}}
    (folder / "released.yaml").write_text(yaml.safe_dump({"model": {"init_args": init_args}}), encoding="utf-8")
    return WavTokenizer.from_pretrained(folder)


def bandwidth_of(recorded: Recorded, case: str) -> int:
    return int(recorded.meta["short_audio_bandwidth_id"]) if case else int(recorded.io["bandwidth_id"])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_codes_and_what_they_are_made_of_equal_the_reference(
    recorded: Recorded, model: WavTokenizer, case: str
) -> None:
    waveforms = recorded.waveform(f"{case}waveform_int16")
    recorded.assert_close(model.features(waveforms).transpose(1, 2), f"{case}encoder_output", "encoder_output")
    encoded = model.encode(waveforms, model.sample_rate)
    assert torch.equal(encoded.codes.transpose(0, 1), recorded.io[f"{case}codes"])
    assert encoded.lengths.tolist() == [model.num_frames(waveforms.shape[1], model.sample_rate)] * len(waveforms)


@pytest.mark.parametrize("case", CASES)
def test_sound_equals_the_reference(recorded: Recorded, model: WavTokenizer, case: str) -> None:
    codes = recorded.io[f"{case}codes"].transpose(0, 1)
    waveforms = model.decode(codes, bandwidth_id=bandwidth_of(recorded, case))
    recorded.assert_close(torch.stack(waveforms), f"{case}audio", "audio")


@torch.no_grad()
def test_entries_and_the_decoder_s_body_equal_the_reference(recorded: Recorded, model: WavTokenizer) -> None:
    entries = model.quantizer.decode(recorded.io["codes"].transpose(0, 1))
    for name in ("features", "features_from_codes"):
        torch.testing.assert_close(entries.transpose(1, 2), recorded.io[name], atol=1e-6, rtol=0)
    recorded.assert_close(model.hidden(entries, int(recorded.io["bandwidth_id"])), "backbone_output")


@torch.no_grad()
def test_distances_of_the_two_nearest_entries_equal_the_reference(recorded: Recorded, model: WavTokenizer) -> None:
    features = model.features(recorded.waveform("waveform_int16"))
    entries = model.quantizer.codebooks[0].weight
    nearest = torch.cdist(features.double(), entries.double()).square().topk(2, largest=False).values
    gap = (nearest[..., 1] - nearest[..., 0]).float()
    torch.testing.assert_close(gap, recorded.io["distance_gap"], atol=1e-3, rtol=1e-3)
    assert float(gap.min()) > recorded.meta["min_gap_best_to_second_best_code"] / 2


def test_sizes_that_the_tensors_tell_are_the_recorded_ones(recorded: Recorded, model: WavTokenizer) -> None:
    sizes, config = recorded.meta["sizes"], WavTokenizer.from_pretrained(recorded.folder).config
    assert config.num_filters == sizes["n_filters"]
    assert list(config.strides) == sizes["downsamples"]
    assert (config.feature_size, config.codebook_size) == (sizes["dimension"], sizes["vq_bins"])
    backbone, head = sizes["backbone"], sizes["head"]
    assert (config.size, config.intermediate_size) == (backbone["dim"], backbone["intermediate_dim"])
    assert (config.num_layers, config.num_conditions) == (backbone["num_layers"], backbone["adanorm_num_embeddings"])
    assert (config.n_fft, config.hop_length) == (head["n_fft"], head["hop_length"])
    # Which of the padding and the sample rate is not the usual one, the YAML alone tells.
    assert dataclasses.replace(config, padding=head["padding"], sample_rate=sizes["sample_rate"]) == model.config


def test_released_sizes_have_exactly_the_released_names_and_shapes(wavtokenizer_folder: Path) -> None:
    lists = sorted(wavtokenizer_folder.glob("full_size_state_dict_keys_*.json"))
    if not lists:
        pytest.skip(f"{wavtokenizer_folder.name} holds no list of released names")
    released_sizes = json.loads((wavtokenizer_folder / "meta.json").read_text())["released_sizes"]
    for path in lists:
        shapes = released_shapes(path)
        config = settings_as(WavTokenizerConfig, shape_values(shapes, path), path)
        sizes = released_sizes[path.stem.rpartition("_")[2]]
        assert (list(config.strides), config.n_fft, config.hop_length) == (
            sizes["downsamples"], sizes["n_fft"], sizes["hop"],
        )  # fmt: skip
        assert (config.size, config.num_layers) == (released_sizes["dim"], released_sizes["num_layers"])
        with torch.device("meta"):
            model = WavTokenizer(config)
        names = model.released_names()
        keep = kept_names(encoder_only=False, is_own=False)
        assert {names[name]: list(one.shape) for name, one in model.weights().items()} == {
            name: shape for name, shape in shapes.items() if keep(name)
        }


def test_the_window_that_releases_hold_is_the_one_that_is_computed(recorded: Recorded, model: WavTokenizer) -> None:
    stored = load_file(recorded.folder / "model.safetensors").get("head.istft.window")
    if stored is None:
        pytest.skip(f"{recorded.folder.name} holds no window")
    assert model.head is not None
    torch.testing.assert_close(model.head.window(), stored, atol=1e-6, rtol=0)
