"""SpeechTokenizer equals the public implementation: codes exactly, values within the folder's tolerances."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from audiollm.tokenizer.zoo.speechtokenizer.model import TRAINING_BUFFERS, SpeechTokenizer

from .recorded import Recorded, released_shapes

CASES = ("", "short.")


@pytest.fixture(scope="module")
def recorded(speechtokenizer_folder: Path) -> Recorded:
    return Recorded(speechtokenizer_folder)


@pytest.fixture(scope="module")
def model(speechtokenizer_folder: Path) -> SpeechTokenizer:
    return SpeechTokenizer.from_pretrained(speechtokenizer_folder)


@pytest.mark.parametrize("case", CASES)
def test_codes_equal_the_reference(recorded: Recorded, model: SpeechTokenizer, case: str) -> None:
    waveforms = recorded.waveform(f"{case}waveform_int16")
    encoded = model.encode(waveforms, model.sample_rate)
    assert torch.equal(encoded.codes.transpose(0, 1), recorded.io[f"{case}codes"])
    assert encoded.lengths.tolist() == [model.num_frames(waveforms.shape[1], model.sample_rate)] * len(waveforms)


def test_codes_of_some_codebooks_equal_the_reference(recorded: Recorded, model: SpeechTokenizer) -> None:
    waveforms = recorded.waveform("waveform_int16")
    first_four = model.encode(waveforms, model.sample_rate, n_q=4)
    without_first = model.encode(waveforms, model.sample_rate, st=1)
    assert torch.equal(first_four.codes.transpose(0, 1), recorded.io["codes_4"])
    assert torch.equal(without_first.codes.transpose(0, 1), recorded.io["codes_st1"])


@torch.no_grad()
def test_features_equal_the_reference(recorded: Recorded, model: SpeechTokenizer) -> None:
    features = model.features(recorded.waveform("waveform_int16"))
    recorded.assert_close(features.transpose(1, 2), "encoder_output")
    codes = recorded.io["codes"].transpose(0, 1)
    recorded.assert_close(model.semantic_features(codes), "semantic_feature")
    entries = torch.stack(model.quantizer.entries(codes)).transpose(2, 3)
    recorded.assert_close(entries, "forward_feature")


def test_sound_equals_the_reference(recorded: Recorded, model: SpeechTokenizer) -> None:
    codes = recorded.io["codes"].transpose(0, 1)
    for name in ("audio", "forward_audio"):
        recorded.assert_close(torch.stack(model.decode(codes))[:, None], name, "audio")
    first_three = torch.stack(model.decode(codes[:, :3]))[:, None]
    recorded.assert_close(first_three, "audio_first3", "audio")
    from_third = torch.stack(model.decode(codes[:, 2:], st=2))[:, None]
    recorded.assert_close(from_third, "audio_from_2", "audio")


def test_sound_of_a_short_clip_equals_the_reference(recorded: Recorded, model: SpeechTokenizer) -> None:
    codes = recorded.io["short.codes"].transpose(0, 1)
    recorded.assert_close(torch.stack(model.decode(codes))[:, None], "short.audio", "audio")


def test_released_sizes_have_exactly_the_released_names_and_shapes(
    speechtokenizer_folder: Path, model: SpeechTokenizer
) -> None:
    path = speechtokenizer_folder / "full_size_state_dict_keys.json"
    if not path.is_file():
        pytest.skip(f"{speechtokenizer_folder.name} holds no list of released names")
    shapes = released_shapes(path)
    codebook_size, dimension = shapes["quantizer.vq.layers.0._codebook.embed"]
    semantic_dimension = shapes.get("transform.weight", [dimension])[0]
    config = dataclasses.replace(
        model.config,
        n_filters=shapes["encoder.model.0.conv.conv.weight_v"][0],
        strides=(8, 5, 4, 2),
        dimension=dimension,
        semantic_dimension=semantic_dimension,
        codebook_size=codebook_size,
        n_q=sum(name.endswith("._codebook.embed") for name in shapes),
        n_residual_layers=1,
        residual_kernel_size=3,
        lstm_layers=2,
        bidirectional=True,
        activation="ELU",
    )
    with torch.device("meta"):
        full = SpeechTokenizer(config)
    names = full.released_names()
    assert {names[name]: list(one.shape) for name, one in full.weights().items()} == {
        name: shape for name, shape in shapes.items() if name.rpartition(".")[2] not in TRAINING_BUFFERS
    }
