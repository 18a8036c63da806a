"""SpeechTokenizer equals the public implementation: codes exactly, values within the folder's tolerances."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from audiollm.tokenizer.zoo.speechtokenizer.model import TRAINING_BUFFERS, SpeechTokenizer, SpeechTokenizerConfig

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


def numbers_of(recorded: Recorded, pattern: str) -> dict[str, int]:
    """Names of recorded tensors that a pattern fits, with the number that its group finds."""
    found = {name: match for name in recorded.io if (match := re.fullmatch(pattern, name))}
    assert found
    return {name: int(match[1]) for name, match in found.items()}


def test_codes_of_some_codebooks_equal_the_reference(recorded: Recorded, model: SpeechTokenizer) -> None:
    waveforms = recorded.waveform("waveform_int16")
    for name, stop in numbers_of(recorded, r"codes_(\d+)").items():
        first = model.encode(waveforms, model.sample_rate, n_q=stop)
        assert torch.equal(first.codes.transpose(0, 1), recorded.io[name])
    for name, start in numbers_of(recorded, r"codes_st(\d+)").items():
        behind = model.encode(waveforms, model.sample_rate, st=start)
        assert torch.equal(behind.codes.transpose(0, 1), recorded.io[name])


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
    for name, stop in numbers_of(recorded, r"audio_first(\d+)").items():
        recorded.assert_close(torch.stack(model.decode(codes[:, :stop]))[:, None], name, "audio")
    for name, start in numbers_of(recorded, r"audio_from_(\d+)").items():
        recorded.assert_close(torch.stack(model.decode(codes[:, start:], st=start))[:, None], name, "audio")


def test_sound_of_a_short_clip_equals_the_reference(recorded: Recorded, model: SpeechTokenizer) -> None:
    codes = recorded.io["short.codes"].transpose(0, 1)
    recorded.assert_close(torch.stack(model.decode(codes))[:, None], "short.audio", "audio")


def released_config(shapes: dict[str, list[int]]) -> SpeechTokenizerConfig:
    """The sizes that the shapes of released tensors tell."""
    codebook_size, dimension = shapes["quantizer.vq.layers.0._codebook.embed"]
    kernels = {name: shape[2] for name, shape in shapes.items() if name.endswith("conv.weight_v")}
    layers = {int(name.split(".")[2]): kernel for name, kernel in kernels.items() if in_a_row(name)}
    blocks = sorted({int(name.split(".")[2]) for name in shapes if re.match(r"encoder\.model\.\d+\.block\.", name)})
    strides = [layers[place] // 2 for place in sorted(layers)[1:-1]]
    return SpeechTokenizerConfig(
        n_filters=shapes["encoder.model.0.conv.conv.weight_v"][0],
        strides=tuple(reversed(strides)),
        dimension=dimension,
        semantic_dimension=shapes.get("transform.weight", [dimension])[0],
        codebook_size=codebook_size,
        n_q=sum(name.endswith("._codebook.embed") for name in shapes),
        sample_rate=16000,
        n_residual_layers=len(blocks) // len(strides),
        residual_kernel_size=kernels[f"encoder.model.{blocks[0]}.block.1.conv.conv.weight_v"],
        lstm_layers=sum(bool(re.search(r"^encoder\..*\.lstm\.weight_hh_l\d+$", name)) for name in shapes),
        bidirectional=any(name.endswith("_reverse") for name in shapes),
        activation="Snake" if any(name.endswith(".alpha") for name in shapes) else "ELU",
    )


def in_a_row(name: str) -> bool:
    """Whether it is of the convolutions of the encoder that are in no residual block."""
    return re.fullmatch(r"encoder\.model\.\d+\.conv\.conv\.weight_v", name) is not None


def test_released_sizes_have_exactly_the_released_names_and_shapes(speechtokenizer_folder: Path) -> None:
    paths = sorted(speechtokenizer_folder.glob("full_size_state_dict_keys*.json"))
    if not paths:
        pytest.skip(f"{speechtokenizer_folder.name} holds no list of released names")
    for path in paths:
        shapes = released_shapes(path)
        with torch.device("meta"):
            full = SpeechTokenizer(released_config(shapes))
        names = full.released_names()
        assert {names[name]: list(one.shape) for name, one in full.weights().items()} == {
            name: shape for name, shape in shapes.items() if name.rpartition(".")[2] not in TRAINING_BUFFERS
        }
