"""The decoder as a part of the tokenizer: found beside it, loaded when needed, saved and uploaded with it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.decoder.attached import AttachedDecoder
from audiollm.tokenizer.decoder.model import WaveformDecoder, convert_decoder

CODES = torch.tensor([[3, 60, 17, 17, 0, 42]])


def sounds_as(tokenizer: UniAudioTokenizer, expected: Tensor) -> bool:
    """Up to rounding: where a tensor lies in memory decides how convolutions add up."""
    (waveform,) = tokenizer.decode(CODES, steps=2)
    return torch.allclose(waveform, expected, atol=1e-4, rtol=0)


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., UniAudioTokenizer]) -> UniAudioTokenizer:
    """Of as many codes as the decoder."""
    return make_tokenizer(quantize_vocab_size=64)


@pytest.fixture
def release(released: Path, tokenizer: UniAudioTokenizer) -> Path:
    """``tokenizer/`` and ``decoder/`` side by side, as released."""
    tokenizer.export_released(released.parent / "tokenizer")
    return released.parent


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the decoder's weights were read")

    monkeypatch.setattr(AttachedDecoder, "get", refuse)


@pytest.mark.parametrize("place", ["", "tokenizer"])
def test_a_release_speaks(release: Path, expected: Tensor, place: str) -> None:
    model = UniAudioTokenizer.from_pretrained(release / place)
    assert model.can_decode
    assert model.output_sample_rate == 22050
    assert sounds_as(model, expected)
    assert torch.cat(list(model.decode_stream(iter(CODES.T), steps=2))).shape == expected.shape
    assert isinstance(model.decoder, WaveformDecoder)
    assert model.decoder is model.decoder


def test_asking_for_the_decoder_leaves_its_weights_alone(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanging a weight waits for whoever computes with it, who may wait for the interpreter: nobody would go on."""
    model = UniAudioTokenizer.from_pretrained(release)
    decoder = model.decoder
    monkeypatch.setattr(WaveformDecoder, "_apply", lambda *_, **__: pytest.fail("the weights were exchanged"))
    assert model.decoder is decoder


@pytest.mark.usefixtures("no_loading")
def test_encoding_never_reads_the_decoder(release: Path, tokenizer: UniAudioTokenizer) -> None:
    model = UniAudioTokenizer.from_pretrained(release)
    assert model.can_decode
    assert model.fingerprint() == tokenizer.fingerprint()
    model.encode(torch.rand(9000), 16000)
    model.double().float().to("cpu")


def test_the_decoder_is_no_part_of_the_tokenizers_weights(release: Path) -> None:
    model = UniAudioTokenizer.from_pretrained(release)
    names, count = set(model.state_dict()), sum(1 for _ in model.parameters())
    assert model.decoder is not None
    assert set(model.state_dict()) == names
    assert sum(1 for _ in model.parameters()) == count
    assert not model.train().decoder.training  # type: ignore[union-attr]


def test_loading_without_or_with_another_decoder(release: Path, tmp_path: Path, expected: Tensor) -> None:
    silent = UniAudioTokenizer.from_pretrained(release, decoder=False)
    assert not silent.can_decode
    assert silent.decoder is None
    with pytest.raises(ValueError, match="no waveform decoder"):
        silent.decode(CODES)
    with pytest.raises(ValueError, match="no waveform decoder"):
        silent.decode_stream(iter(CODES))
    other = convert_decoder(release, tmp_path / "other")
    assert sounds_as(UniAudioTokenizer.from_pretrained(release, decoder=other), expected)
    silent.attach_decoder(WaveformDecoder.from_pretrained(other))
    assert sounds_as(silent, expected)


def test_a_decoder_of_other_codes_is_refused(release: Path, make_tokenizer: Callable[..., UniAudioTokenizer]) -> None:
    make_tokenizer(quantize_vocab_size=24).export_released(release / "tokenizer")
    with pytest.raises(ValueError, match=r"64 codes at 25.0 Hz, but this tokenizer has 24 at 25.0 Hz"):
        UniAudioTokenizer.from_pretrained(release)
    assert not UniAudioTokenizer.from_pretrained(release, decoder=False).can_decode


def test_a_refused_decoder_is_named_when_the_tokenizer_is_loaded(release: Path) -> None:
    path = release / "decoder" / "config.yaml"
    path.write_text(path.read_text() + "\nextra: !apply:os.system [ls]\n")
    with pytest.raises(ValueError, match=r"!apply:os\.system"):
        UniAudioTokenizer.from_pretrained(release)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_saving_keeps_the_decoder(release: Path, tmp_path: Path, expected: Tensor, is_loaded: bool) -> None:
    model = UniAudioTokenizer.from_pretrained(release)
    if is_loaded:
        assert model.decoder is not None
    model.save_pretrained(tmp_path / "first")
    UniAudioTokenizer.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for name in ("first", "second"):
        files = {path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*.*")}
        assert {"decoder/config.json", "decoder/model.safetensors"} <= files
        assert not any(file.endswith((".pt", ".yaml")) for file in files)
        assert sounds_as(UniAudioTokenizer.from_pretrained(tmp_path / name), expected)
    model.save_pretrained(tmp_path / "third", is_main_process=False)
    assert not (tmp_path / "third" / "decoder").exists()


def test_a_tokenizer_may_be_saved_over_itself(release: Path, tmp_path: Path, expected: Tensor) -> None:
    folder = tmp_path / "own"
    UniAudioTokenizer.from_pretrained(release).save_pretrained(folder)
    UniAudioTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert sounds_as(copy.deepcopy(UniAudioTokenizer.from_pretrained(folder)), expected)


def test_pushing_uploads_the_decoder_too(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        UniAudioTokenizer, "push_to_hub", lambda self, repo_id, **options: uploads.append((repo_id, options))
    )
    model = UniAudioTokenizer.from_pretrained(release)
    model.save_pretrained(tmp_path / "own", push_to_hub=True, repo_id="someone/tokenizer", private=True)
    assert uploads == [("someone/tokenizer", {"private": True})]


def test_on_the_hub_weights_follow_when_they_are_needed(
    release: Path, tmp_path: Path, expected: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "cache" / "snapshots" / "0123abc"
    shutil.copytree(release / "tokenizer", snapshot / "tokenizer")
    (snapshot / "decoder").mkdir()
    shutil.copy(release / "decoder" / "config.yaml", snapshot / "decoder")
    asked: list[tuple[str, dict[str, Any]]] = []

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        if options["allow_patterns"] == ["decoder/*"]:
            shutil.copytree(release / "decoder", snapshot / "decoder", dirs_exist_ok=True)
        return str(snapshot)

    monkeypatch.setattr("audiollm.tokenizer.checkpoints.folders.snapshot_download", download)
    model = UniAudioTokenizer.from_pretrained("someone/tokenizer", revision="main", token="secret")
    assert model.can_decode
    assert len(asked) == 1
    assert sounds_as(model, expected)
    assert sounds_as(model, expected)
    assert asked[1:] == [
        ("someone/tokenizer", {"allow_patterns": ["decoder/*"], "revision": "0123abc", "token": "secret"})
    ]
