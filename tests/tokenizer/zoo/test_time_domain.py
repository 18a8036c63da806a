"""What holds of the tokenizers that work on waveforms, WavTokenizer and SpeechTokenizer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.zoo import codec
from audiollm.tokenizer.zoo.codec import CodecTokenizer
from audiollm.tokenizer.zoo.speechtokenizer.model import SpeechTokenizer, SpeechTokenizerConfig
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer

SIZES: dict[str, dict[str, Any]] = {
    "wav": {
        "num_filters": 2, "strides": (5, 4, 4), "feature_size": 8, "codebook_size": 16, "size": 64,
        "intermediate_size": 16, "num_layers": 2, "n_fft": 320, "hop_length": 80, "num_conditions": 3,
        "sample_rate": 8000,
    },
    "speech": {
        "n_filters": 2, "strides": (4, 4, 5), "dimension": 8, "semantic_dimension": 6, "codebook_size": 16, "n_q": 4,
        "sample_rate": 8000, "bidirectional": True,
    },
}  # fmt: skip
RATE = 8000
Noise = Callable[..., Tensor]


def make_wav(**changes: Any) -> WavTokenizer:
    torch.manual_seed(0)
    return WavTokenizer(WavTokenizerConfig(**{**SIZES["wav"], **changes})).eval()


def make_speech(**changes: Any) -> SpeechTokenizer:
    torch.manual_seed(0)
    return SpeechTokenizer(SpeechTokenizerConfig(**{**SIZES["speech"], **changes})).eval()


@pytest.fixture(params=[make_wav, make_speech], ids=["wav", "speech"])
def model(request: pytest.FixtureRequest, noise: Noise) -> CodecTokenizer:
    """Tiny, with entries among the features of noise, so that codes vary."""
    made: WavTokenizer | SpeechTokenizer = request.param()
    with torch.no_grad():
        made.quantizer.fit(made.features(noise(40_000)[None])[0])
    return made


def released(model: CodecTokenizer) -> dict[str, Tensor]:
    """Its weights as a release names them."""
    names = model.released_names()
    return {names[name]: one.clone() for name, one in model.weights().items()}


def write_lightning(model: WavTokenizer, folder: Path) -> None:
    """As WavTokenizer is released: what its trainer saves, with more than the model in it, and its settings."""
    folder.mkdir()
    config = model.config
    tensors = released(model)
    tensors |= {
        "feature_extractor.encodec.decoder.model.0.conv.conv.bias": torch.zeros(3),
        "feature_extractor.encodec.quantizer.vq.layers.0._codebook.inited": torch.ones(1),
        "head.istft.window": torch.hann_window(config.n_fft),
        "melspec_loss.mel_spec.spectrogram.window": torch.zeros(3),
        "multiperioddisc.discriminators.0.steps": torch.zeros(1, dtype=torch.int64),
    }
    torch.save({"epoch": 3, "global_step": 7, "state_dict": tensors, "callbacks": {}}, folder / "model.ckpt")
    init_args = {
        "sample_rate": config.sample_rate,
        "feature_extractor": {"init_args": {"dowmsamples": list(config.strides), "vq_bins": config.codebook_size}},
        "backbone": {"init_args": {"dim": config.size, "num_layers": config.num_layers}},
        "head": {"init_args": {"n_fft": config.n_fft, "hop_length": config.hop_length, "padding": config.padding}},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump({"model": {"init_args": init_args}}))


def write_speech(model: SpeechTokenizer, folder: Path) -> None:
    """As SpeechTokenizer is released."""
    folder.mkdir()
    values = {**model.settings(), "strides": list(model.config.strides), "batch_size": 6}
    del values["encoder_only"]
    (folder / "config.json").write_text(json.dumps(values))
    torch.save(released(model), folder / "SpeechTokenizer.pt")


def write_released(model: CodecTokenizer, folder: Path) -> None:
    if isinstance(model, WavTokenizer):
        write_lightning(model, folder)
    else:
        assert isinstance(model, SpeechTokenizer)
        write_speech(model, folder)


# --- clips ------------------------------------------------------------------------------------------------------------


def test_each_clip_of_a_batch_gets_what_it_gets_alone(model: CodecTokenizer, noise: Noise) -> None:
    clips = [noise(3000, 1), noise(81, 2), noise(3000, 3), noise(5), noise(0)]
    encoded = model.encode(clips, RATE, return_features=True)
    assert encoded.lengths.tolist() == [38, 2, 38, 1, 0] == [model.num_frames(len(clip), RATE) for clip in clips]
    waveforms = model.decode(encoded)
    assert encoded.features is not None
    assert len(encoded[0].unique()) > 2
    for index, clip in enumerate(clips):
        alone = model.encode(clip, RATE, return_features=True)
        assert torch.equal(alone[0], encoded[index])
        assert alone.features is not None
        if len(clip):
            torch.testing.assert_close(alone.features[0], encoded.features[index], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.decode(alone)[0], waveforms[index], atol=1e-5, rtol=1e-4)
        assert len(waveforms[index]) == len(encoded[index][0]) * model.frame_samples


def test_long_clips_are_computed_in_pieces_of_bounded_memory(
    model: CodecTokenizer, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "SEGMENT_SECONDS", 0.5)
    monkeypatch.setattr(type(model), "seconds_at_once", 1.0)
    sizes: list[int] = []
    computed = type(model).features
    monkeypatch.setattr(type(model), "features", lambda self, rows: sizes.append(rows.numel()) or computed(self, rows))
    clip = noise(10 * RATE + 100)
    encoded = model.encode(clip, RATE)
    assert sum(sizes) == len(clip)
    assert max(sizes) == RATE
    assert int(encoded.lengths[0]) == model.num_frames(len(clip), RATE)
    pieces = [model.encode(piece, RATE)[0] for piece in clip.split(RATE // 2)]
    assert torch.equal(torch.cat(pieces, dim=1), encoded[0])
    assert len(model.decode(encoded)[0]) == int(encoded.lengths[0]) * model.frame_samples


def test_other_rates_are_resampled(model: CodecTokenizer, noise: Noise) -> None:
    assert int(model.encode(noise(2 * 4000), 2 * RATE).lengths[0]) == 50 == model.num_frames(2 * 4000, 2 * RATE)


@pytest.mark.parametrize("clip", [torch.zeros(2, 3, 4), torch.full((9,), torch.nan), torch.zeros(9, dtype=torch.int16)])
def test_what_is_no_waveform_is_refused(model: CodecTokenizer, clip: Tensor) -> None:
    with pytest.raises(ValueError, match=r"clip 0|waveforms have shape"):
        model.encode(clip, RATE)


def test_bfloat16_computes_in_bfloat16_and_gives_float32(model: CodecTokenizer, noise: Noise) -> None:
    rounded = model.to(torch.bfloat16)
    encoded = rounded.encode([noise(3000), noise(90)], RATE, return_features=True)
    assert encoded.features is not None
    assert encoded.features[0].dtype == torch.float32
    waveform = rounded.decode(encoded)[0]
    assert waveform.dtype == torch.float32
    assert bool(waveform.isfinite().all())


def test_training_mode_changes_nothing_and_stays(model: CodecTokenizer, noise: Noise) -> None:
    expected = model.encode(noise(900), RATE)
    sound = model.decode(expected)[0]
    model.train()
    assert torch.equal(model.encode(noise(900), RATE).codes, expected.codes)
    assert torch.equal(model.decode(expected)[0], sound)
    assert all(module.training for module in model.modules())


# --- codes ------------------------------------------------------------------------------------------------------------


def test_codes_out_of_range_or_of_too_many_codebooks_are_refused(model: CodecTokenizer) -> None:
    with pytest.raises(ValueError, match=r"code 16 of codebook 0 is outside \[0, 16\)"):
        model.decode(torch.full((model.num_codebooks, 3), 16))
    with pytest.raises(ValueError, match=r"codebooks?: give"):
        model.decode(torch.zeros(model.num_codebooks + 1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"speaker: .* takes none"):
        model.decode(torch.zeros(model.num_codebooks, 3, dtype=torch.int64), speaker=torch.zeros(3))


def test_the_first_codebooks_alone_can_be_decoded() -> None:
    model = make_speech()
    codes = torch.randint(0, 16, (4, 9))
    content, timbre = model.decode(codes[:1])[0], model.decode(codes[1:], st=1)[0]
    assert len(content) == len(timbre) == 9 * model.frame_samples
    assert not torch.equal(content, model.decode(codes)[0])
    mixed = model.decode([codes[:2], codes])  # of one length, but of other codebooks
    torch.testing.assert_close(mixed[0], model.decode(codes[:2])[0])


@pytest.mark.parametrize("chosen", [{"n_q": 5}, {"n_q": 0}, {"st": 4}, {"st": -1}, {"n_q": 2, "st": 2}])
def test_codebooks_that_are_not_there_are_refused(chosen: dict[str, int], noise: Noise) -> None:
    with pytest.raises(ValueError, match="the codebooks there are"):
        make_speech().encode(noise(900), RATE, **chosen)


def test_a_bandwidth_that_is_not_there_is_refused_and_others_differ() -> None:
    model = make_wav()
    assert model.backbone is not None
    torch.nn.init.normal_(model.backbone.norm.scale.weight)
    codes = torch.randint(0, 16, (1, 9))
    assert not torch.equal(model.decode(codes)[0], model.decode(codes, bandwidth_id=2)[0])
    with pytest.raises(ValueError, match="bandwidth_id=3: this WavTokenizer knows 0 to 2"):
        model.decode(codes, bandwidth_id=3)


# --- files ------------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_gives_the_same(model: CodecTokenizer, noise: Noise, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, type(model))
    assert again.fingerprint() == model.fingerprint()
    encoded = model.encode(noise(900), RATE)
    assert torch.equal(again.encode(noise(900), RATE).codes, encoded.codes)
    assert torch.equal(again.decode(encoded)[0], model.decode(encoded)[0])
    assert again.settings() == model.settings()


def test_the_released_layout_is_the_same_tokenizer(model: CodecTokenizer, noise: Noise, tmp_path: Path) -> None:
    write_released(model, tmp_path / "released")
    read = AudioTokenizer.from_pretrained(tmp_path / "released")
    assert read.fingerprint() == model.fingerprint()
    encoded = model.encode(noise(900), RATE)
    assert torch.equal(read.encode(noise(900), RATE).codes, encoded.codes)
    assert torch.equal(read.decode(encoded)[0], model.decode(encoded)[0])


def test_the_newer_spelling_of_weight_norm_is_read_too(model: CodecTokenizer, tmp_path: Path) -> None:
    newer = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): one.contiguous()
        for name, one in released(model).items()
    }
    write_released(model, tmp_path / "released")
    for path in [*tmp_path.glob("released/*.pt"), *tmp_path.glob("released/*.ckpt")]:
        path.unlink()
    save_file(newer, tmp_path / "released" / "model.safetensors")
    assert AudioTokenizer.from_pretrained(tmp_path / "released").fingerprint() == model.fingerprint()


def test_without_a_decoder_it_is_the_same_tokenizer_that_only_listens(
    model: CodecTokenizer, noise: Noise, tmp_path: Path
) -> None:
    write_released(model, tmp_path / "released")
    model.save_pretrained(tmp_path / "own")
    for folder in ("released", "own"):
        listening = AudioTokenizer.from_pretrained(tmp_path / folder, encoder_only=True)
        assert not listening.can_decode
        assert listening.fingerprint() == model.fingerprint()
        encoded = listening.encode(noise(900), RATE)
        assert torch.equal(encoded.codes, model.encode(noise(900), RATE).codes)
        with pytest.raises(ValueError, match="cannot decode"):
            listening.decode(encoded)
    listening.save_pretrained(tmp_path / "again")
    again = AudioTokenizer.from_pretrained(tmp_path / "again")
    assert not again.can_decode
    assert again.fingerprint() == model.fingerprint()


def test_half_a_checkpoint_is_listed(model: CodecTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = [name for name in tensors if name.endswith(("lstm.bias_hh_l1", "layers.3.conv.bias"))]
    tensors["more"] = torch.zeros(1)
    tensors["quantizer.codebooks.0.weight"] = torch.zeros(15, 8)
    save_file({name: one for name, one in tensors.items() if name not in gone}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"unknown: more; wrong shape: quantizer\.codebooks\.0\.weight \[15, 8\]"
    ) as error:
        AudioTokenizer.from_pretrained(tmp_path)
    assert all(name in str(error.value) for name in gone)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_half_a_release_is_listed_in_its_own_names(model: CodecTokenizer, kept: float, tmp_path: Path) -> None:
    write_released(model, tmp_path / "released")
    path = next(path for path in (tmp_path / "released").iterdir() if path.suffix in (".pt", ".ckpt"))
    names = sorted(released(model))
    few = {name: released(model)[name] for name in names[: int(len(names) * kept)]}
    torch.save({"state_dict": few} if path.suffix == ".ckpt" else few, path)
    with pytest.raises(ValueError, match="missing: ") as error:
        AudioTokenizer.from_pretrained(tmp_path / "released")
    assert path.name in str(error.value)
    assert any(name in str(error.value) for name in names[int(len(names) * kept) :])


def test_what_is_not_there_is_named(model: CodecTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "own")
    (tmp_path / "own" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"own/model\.safetensors is not there"):
        AudioTokenizer.from_pretrained(tmp_path / "own")
    write_released(model, tmp_path / "released")
    settings = next(tmp_path.glob("released/*.json"), None) or next(tmp_path.glob("released/*.yaml"))
    settings.rename(tmp_path / settings.name)
    with pytest.raises(ValueError, match=r"config\.json|\.yaml"):
        type(model).from_pretrained(tmp_path / "released")
    shutil.copy(tmp_path / settings.name, settings)
    for path in [*tmp_path.glob("released/*.pt"), *tmp_path.glob("released/*.ckpt")]:
        path.unlink()
    with pytest.raises(ValueError, match=r"holds no weights"):
        type(model).from_pretrained(tmp_path / "released")


def test_a_yaml_of_another_frame_rate_is_refused(tmp_path: Path) -> None:
    write_lightning(make_wav(), tmp_path / "released")
    path = tmp_path / "released" / "settings.yaml"
    values = yaml.safe_load(path.read_text())
    values["model"]["init_args"]["head"]["init_args"]["hop_length"] = 100
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"settings\.yaml: hop_length=100, but a frame .* has 80 samples"):
        AudioTokenizer.from_pretrained(tmp_path / "released")
    values["model"]["init_args"]["head"]["init_args"]["hop_length"] = 80
    values["model"]["init_args"]["feature_extractor"]["init_args"]["dowmsamples"] = [4, 5, 4]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"wrong shape: feature_extractor\.encodec\.encoder\.model\.6\.conv"):
        AudioTokenizer.from_pretrained(tmp_path / "released")
    path.write_text("seed_everything: 3407")
    with pytest.raises(ValueError, match=r"settings\.yaml is not the YAML of a WavTokenizer"):
        AudioTokenizer.from_pretrained(tmp_path / "released")


def test_sizes_of_the_decoder_that_make_no_sense_are_named_with_their_folder(tmp_path: Path) -> None:
    make_wav().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for key, value in (("n_fft", 0), ("padding", "valid"), ("size", 33)):
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {key: value}))
        with pytest.raises(ValueError, match=rf"{tmp_path.name}: no tokenizer .*{value}"):
            AudioTokenizer.from_pretrained(tmp_path)
        path.write_text(json.dumps(values))


def test_two_checkpoints_in_a_folder_are_named(model: CodecTokenizer, tmp_path: Path) -> None:
    write_released(model, tmp_path / "released")
    path = next(path for path in (tmp_path / "released").iterdir() if path.suffix in (".pt", ".ckpt"))
    shutil.copy(path, path.with_stem("another"))
    names = ", ".join(sorted([path.name, f"another{path.suffix}"]))
    with pytest.raises(ValueError, match=rf"{re.escape(names)}.*leave the one that is meant"):
        AudioTokenizer.from_pretrained(tmp_path / "released")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("n_filters", "64", "n_filters='64' must be a whole number"),
        ("strides", [], "strides=.* must be a list"),
        ("activation", "ReLU", "activation='ReLU': known are ELU, Snake"),
        ("n_q", 0, "n_q=0"),
        ("n_filters", 10**5, r"wrong shape: .*encoder\.model\.0"),
        ("n_filters", 10**12, "no tokenizer has the sizes"),
        ("n_q", 10**9, "n_q=1000000000: give 1000 or fewer"),
        ("sample_rate", 16, r"config\.json: sample_rate=16: give"),
    ],
)
def test_settings_that_make_no_sense_are_named(key: str, value: Any, words: str, tmp_path: Path) -> None:
    model = make_speech()
    write_speech(model, tmp_path / "released")
    (tmp_path / "released" / "SpeechTokenizer.pt").unlink()
    save_file(
        {name: one.contiguous() for name, one in released(model).items()}, tmp_path / "released" / "model.safetensors"
    )
    path = tmp_path / "released" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=words):
        AudioTokenizer.from_pretrained(tmp_path / "released")


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "Snake"},
        {"activation": "Snake", "n_residual_layers": 2, "bidirectional": False},
        {"lstm_layers": 0, "semantic_dimension": 8},
        {"lstm_layers": 1, "residual_kernel_size": 5, "dilation_base": 3, "n_residual_layers": 3},
    ],
)
def test_other_forms_of_the_network_work_and_load(changes: dict[str, Any], noise: Noise, tmp_path: Path) -> None:
    model = make_speech(**changes)
    write_speech(model, tmp_path / "released")
    read = AudioTokenizer.from_pretrained(tmp_path / "released")
    assert read.fingerprint() == model.fingerprint()
    encoded = model.encode(noise(900), RATE)
    assert torch.equal(read.encode(noise(900), RATE).codes, encoded.codes)
    assert len(read.decode(encoded)[0]) == int(encoded.lengths[0]) * 80


@pytest.mark.parametrize(
    "changes", [{"num_conditions": None}, {"has_position_net": False}, {"padding": "center"}, {"num_codebooks": 2}]
)
def test_other_forms_of_the_decoder_work_and_load(changes: dict[str, Any], noise: Noise, tmp_path: Path) -> None:
    model = make_wav(**changes)
    write_lightning(model, tmp_path / "released")
    read = AudioTokenizer.from_pretrained(tmp_path / "released")
    assert read.settings() == model.settings()
    encoded = model.encode(noise(900), RATE)
    assert torch.equal(read.decode(encoded)[0], model.decode(encoded)[0])


def test_facts(model: CodecTokenizer) -> None:
    assert (model.sample_rate, model.output_sample_rate, model.frame_rate) == (RATE, RATE, 100.0)
    assert model.codebook_sizes == (16,) * model.num_codebooks
    assert not model.is_causal
    assert model.can_decode
    assert model.can_encode_stream
    assert model.latent_size is None
