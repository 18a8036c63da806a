"""Opening a folder that holds an audio tokenizer: its own files say which, and what is wrong with them is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from audiollm.mini import mini_folder
from audiollm.tokenizer import AudioTokenizer, UniAudioTokenizer
from audiollm.tokenizer.decoder.checkpoints.files import MODEL_TYPE as DECODER
from audiollm.tokenizer.facts import bitrate_bps, facts_of_kinds, facts_of_tokenizer
from audiollm.tokenizer.kinds import KINDS, kind_named
from audiollm.tokenizer.losatok.semantic import MODEL_TYPE as SEMANTIC
from audiollm.tokenizer.opening import find_tokenizer_folder, kind_of
from audiollm.tokenizer.zoo.cosyvoice2.model import CosyVoice2Tokenizer
from tests.tokenizer.zoo.tiny_codecs import make_codec


@pytest.fixture
def ours(tokenizer: UniAudioTokenizer, tmp_path: Path) -> Path:
    """The folder of a tiny `UniAudioTokenizer`."""
    tokenizer.save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def dac(tmp_path: Path) -> Path:
    """The folder of a tiny DAC."""
    make_codec("dac").save_pretrained(tmp_path / "dac")
    return tmp_path / "dac"


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


# ---------------------------------------------------------------------- which kind


def test_the_kind_is_told_by_files_whatever_the_folder_is_called(ours: Path, dac: Path) -> None:
    assert kind_of(ours.rename(ours.with_name("mimi"))).name == "uniaudio"
    assert kind_of(dac.rename(dac.with_name("glm"))).name == "dac"
    assert type(AudioTokenizer.from_pretrained(dac.with_name("glm"))).__name__ == "DAC"


def test_an_audio_llm_and_a_release_are_opened_by_what_lies_in_them(dac: Path, tmp_path: Path) -> None:
    mini = AudioTokenizer.from_pretrained("mini")
    assert AudioTokenizer.from_pretrained(mini_folder()).fingerprint() == mini.fingerprint()
    for place in ("audio_tokenizer", "tokenizer"):
        folder = tmp_path / f"with_{place}"
        shutil.copytree(dac, folder / place)
        (folder / "config.json").write_text('{"model_type": "qwen2"}')
        assert find_tokenizer_folder(folder) == folder / place
        assert AudioTokenizer.from_pretrained(folder).kind == "dac"
        assert AudioTokenizer.from_pretrained(folder, subfolder=place).kind == "dac"


def test_every_kind_has_a_name_of_its_own_and_all_facts() -> None:
    assert len({kind.name for kind in KINDS}) == len({kind.title for kind in KINDS}) == len(KINDS)
    assert [fact["kind"] for fact in facts_of_kinds()] == [kind.name for kind in KINDS]
    assert all(fact[name] for fact in facts_of_kinds() for name in ("title", "sizes", "licence", "files"))
    with pytest.raises(ValueError, match="no kind of audio tokenizer called 'opus'; known are uniaudio"):
        kind_named("opus")


def test_another_class_than_the_folders_is_refused(dac: Path) -> None:
    codec = AudioTokenizer.from_pretrained(dac)
    with pytest.raises(ValueError, match=r"describes a 'dac' model"):
        UniAudioTokenizer.from_pretrained(dac)
    assert type(codec).from_pretrained(dac).fingerprint() == codec.fingerprint()


# ---------------------------------------------------------------------- bad input


def test_files_of_two_kinds_are_refused_and_both_are_named(dac: Path) -> None:
    (dac / "speech_tokenizer_v2.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"files of 2 kinds .*CosyVoice2.*DAC.*give each its own folder"):
        AudioTokenizer.from_pretrained(dac)


def test_what_we_saved_does_not_hide_the_files_of_another_kind(tmp_path: Path) -> None:
    CosyVoice2Tokenizer(num_mel_bins=8, size=64, num_blocks=1, num_dims=2).save_pretrained(tmp_path)
    assert kind_of(tmp_path).name == "cosyvoice2"
    for name in ("wavtokenizer.ckpt", "wavtokenizer.yaml"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"files of 2 kinds .*CosyVoice2.*WavTokenizer"):
        AudioTokenizer.from_pretrained(tmp_path)


def test_a_config_without_weights_names_the_missing_file(ours: Path, dac: Path) -> None:
    for folder in (ours, dac):
        (folder / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            AudioTokenizer.from_pretrained(folder)


def test_weights_without_a_config_are_refused_by_what_was_looked_for(ours: Path, dac: Path) -> None:
    for folder in (ours, dac):
        (folder / "config.json").unlink()
        with pytest.raises(ValueError, match=r"holds no audio tokenizer\. .*Looked for: .*config\.json"):
            AudioTokenizer.from_pretrained(folder)


def test_an_empty_folder_a_file_and_no_folder_are_refused(tmp_path: Path, dac: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no audio tokenizer\. Looked for: UniAudio"):
        AudioTokenizer.from_pretrained(tmp_path / "empty")
    with pytest.raises(ValueError, match="is a file; pass the folder"):
        AudioTokenizer.from_pretrained(dac / "model.safetensors")
    with pytest.raises(ValueError, match="neither a folder here nor a tokenizer on the Hub"):
        AudioTokenizer.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize("model_type", ["qwen2", "audiollm_opus", "whisper_", 7, None])
def test_an_unknown_model_type_is_named(model_type: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    named = "" if model_type is None else f"describes a {model_type!r} model.*"
    with pytest.raises(ValueError, match=f"holds no audio tokenizer.*{named}Looked for"):
        AudioTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "advice"),
    [(SEMANTIC, r"the semantic side of a LoSATok.*--tokenizer\.semantic FOLDER"), (DECODER, "a waveform decoder")],
)
def test_a_part_of_a_tokenizer_is_told_from_a_whole_one(model_type: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=f"holds no audio tokenizer, but {advice}"):
        AudioTokenizer.from_pretrained(tmp_path)


def test_a_config_that_is_no_json_object_is_named(dac: Path) -> None:
    for text in ("{", "[]", '"dac"'):
        (dac / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            AudioTokenizer.from_pretrained(dac)


def test_weights_that_are_no_numbers_or_cut_off_are_refused(ours: Path, dac: Path) -> None:
    for folder in (ours, dac):
        path = folder / "model.safetensors"
        whole, tensors = path.read_bytes(), load_file(path)
        name = next(name for name, one in tensors.items() if name.endswith("weight") and one.dim() > 1)
        tensors[name].flatten()[0] = float("nan")
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match="NaN or infinity in"):
            AudioTokenizer.from_pretrained(folder)
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"model\.safetensors is cut off or damaged"):
            AudioTokenizer.from_pretrained(folder)


def test_a_rate_in_the_config_that_the_network_does_not_have_is_refused(ours: Path, dac: Path, tmp_path: Path) -> None:
    make_codec("mimi").save_pretrained(tmp_path / "mimi")
    for folder, values in ((tmp_path / "mimi", {"frame_rate": 1400}), (dac, {"hop_length": 4})):
        change(folder, **values)
        with pytest.raises(ValueError, match=rf"config\.json: {next(iter(values))}=|in memory: {next(iter(values))}="):
            AudioTokenizer.from_pretrained(folder)
    values = json.loads((ours / "preprocessor_config.json").read_text()) | {"sampling_rate": 8000}
    (ours / "preprocessor_config.json").write_text(json.dumps(values))
    change(ours, model_type="whisper")  # of the released layout, which states it there
    with pytest.raises(ValueError, match="sampling_rate=8000"):
        AudioTokenizer.from_pretrained(ours)


def test_an_unknown_keyword_is_refused(ours: Path, dac: Path) -> None:
    for folder in (ours, dac):
        with pytest.raises(TypeError, match=r"unknown options.*: num_codebook;? .*known|num_codebook;"):
            AudioTokenizer.from_pretrained(folder, num_codebook=4)
    with pytest.raises(TypeError, match="num_codebooks"):  # which DAC has
        AudioTokenizer.from_pretrained(ours, num_codebooks=1)


def test_another_fingerprint_than_the_meant_one_is_refused(ours: Path, dac: Path) -> None:
    for folder in (ours, dac):
        found = AudioTokenizer.from_pretrained(folder).fingerprint()
        assert AudioTokenizer.from_pretrained(folder, fingerprint=found, encoder_only=True).fingerprint() == found
        with pytest.raises(ValueError, match=f"another audio tokenizer .fingerprint {found[:12]}"):
            AudioTokenizer.from_pretrained(folder, fingerprint="f" * 64)


@pytest.mark.parametrize(
    ("clip", "named"),
    [
        (torch.zeros(2, 3, 4), "pass"),
        (torch.zeros(4, dtype=torch.int16), "convert to float"),
        (torch.tensor([0.0, float("nan")]), "clip 0"),
        ([torch.zeros(9), torch.zeros(2, 9)], "clip 1 has shape .*channels"),
    ],
)
def test_sound_that_is_none_is_refused_and_named(clip: Any, named: str, dac: Path) -> None:
    codec = AudioTokenizer.from_pretrained(dac)
    with pytest.raises(ValueError, match=named):
        codec.encode(clip, 16000)
    for sample_rate in (0, 12.5, "16000"):
        with pytest.raises(ValueError, match="rate"):
            codec.encode(torch.zeros(9), sample_rate)  # type: ignore[arg-type]


# -------------------------------------------------------------------------- facts


def test_facts_of_a_tokenizer_are_those_of_its_interface(
    dac: Path, make_tokenizer: Callable[..., UniAudioTokenizer]
) -> None:
    facts = facts_of_tokenizer(AudioTokenizer.from_pretrained(dac))
    assert (facts["kind"], facts["num_codebooks"], facts["codebook_sizes"]) == ("dac", 3, [16, 16, 16])
    assert (facts["sample_rate"], facts["frame_rate"], facts["tokens_per_second"]) == (16000, 1600, 4800)
    assert facts["bitrate_bps"] == bitrate_bps(1600, [16, 16, 16]) == 1600 * 3 * 4
    assert facts["can_decode"]
    assert facts["licence"] == "MIT"
    assert facts["parameters"] > 1000
    json.dumps(facts)
    ours = facts_of_tokenizer(make_tokenizer())
    assert (ours["kind"], ours["can_decode"], ours["output_sample_rate"]) == ("uniaudio", False, None)


def test_what_is_not_needed_yet_or_at_all_stays_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(_: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr("audiollm.tokenizer.checkpoints.folders.snapshot_download", download)
    find_tokenizer_folder("FunAudioLLM/CosyVoice2-0.5B")
    repository = ["llm.pt", "flow.pt", "CosyVoice-BlankEN/model.safetensors", "speech_tokenizer_v2.onnx"]
    options = {"allow_patterns": asked["allow_patterns"], "ignore_patterns": asked["ignore_patterns"]}
    assert list(filter_repo_objects(repository, **options)) == ["speech_tokenizer_v2.onnx"]
    release = ["decoder/config.yaml", "decoder/flow.pt", "decoder/hift.pt", "tokenizer/config.json"]
    assert list(filter_repo_objects(release, **options)) == ["decoder/config.yaml", "tokenizer/config.json"]
