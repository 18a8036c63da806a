"""Audio tokenizers of other kinds outside the LLM: listed, opened by every command, copied, uploaded, measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForAudioTokenization

from audiollm.benchmarks import reconstruction as reconstruction_benchmark
from audiollm.benchmarks.codes.features import encode_clips, load_encoder
from audiollm.benchmarks.codes.stability import token_stability
from audiollm.benchmarks.speech.synthesis import decoder_fingerprint
from audiollm.cli import main
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.folders import check_text_llm, copy_audio_tokenizer, copy_model, save_audio_tokenizer
from audiollm.huggingface.registration import OTHER_KINDS
from audiollm.reconstruction import reconstruct
from audiollm.tokenizer import kinds, opening
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.kinds import KINDS, UNIAUDIO_KINDS
from audiollm.tokenizer.zoo.codec import CodecTokenizer
from tests.tokenizer.zoo.tiny_codecs import make_codec

RATE = 16_000
SECONDS = 0.25


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of tiny codecs: ``mimi``, ``dac``, and ``one``, a DAC of which one codebook is used."""
    folder = tmp_path_factory.mktemp("codecs")
    for kind in ("mimi", "dac"):
        make_codec(kind).save_pretrained(folder / kind)
    AudioTokenizer.from_pretrained(folder / "dac", num_codebooks=1).save_pretrained(folder / "one")  # type: ignore[attr-defined]
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A quarter of a second of noise."""
    noise = np.random.default_rng(3).normal(scale=0.2, size=round(RATE * SECONDS)).astype(np.float32)
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "a.wav", noise, RATE)
    return tmp_path / "clips" / "a.wav"


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


# -------------------------------------------------------------- audiollm tokenizers


def test_the_command_lists_every_kind_with_its_licence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # no cell of the table is broken into lines
    main(["tokenizers"])
    shown = capsys.readouterr().out
    main(["tokenizers", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in listed] == [kind.name for kind in KINDS]
    for kind in KINDS:
        assert kind.title in shown
        assert kind.licence in shown
        assert kind.looks_for in shown


def test_the_command_says_what_a_folder_holds(codecs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["tokenizers", str(codecs / "mimi"), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert {name: facts[name] for name in ("kind", "num_codebooks", "sample_rate", "frame_rate")} == {
        "kind": "mimi", "num_codebooks": 4, "sample_rate": 24000, "frame_rate": 1500.0,
    }  # fmt: skip
    assert all(facts[name] for name in ("can_decode", "can_encode_stream", "can_decode_stream", "is_causal"))
    main(["tokenizers", str(codecs / "dac")])
    shown = capsys.readouterr().out
    for figure in ("3 × 16", "4,800", "MIT"):
        assert figure in shown
    main(["tokenizers", "mini", "--json"])
    assert json.loads(capsys.readouterr().out)["kind"] == "uniaudio"


def test_the_command_names_what_is_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no audio tokenizer" in fails(["tokenizers", str(tmp_path)], capsys)
    assert "--device is for one tokenizer" in fails(["tokenizers", "--device", "cpu"], capsys)


# ------------------------------------------------------------------- other commands


def test_a_corpus_is_tokenized_by_another_kind(
    codecs: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "codes.jsonl"
    main(["tokenize", str(clip.parent), str(output), "--audio-tokenizer", str(codecs / "one"), "--json"])
    assert json.loads(capsys.readouterr().out)["records"] == 1
    record = json.loads(output.read_text())
    tokenizer = AudioTokenizer.from_pretrained(codecs / "one")
    samples, _ = soundfile.read(clip, dtype="float32")
    assert record["codes"] == tokenizer.encode(torch.from_numpy(samples), RATE).tolist()[0]
    assert record["audio_tokenizer"] == tokenizer.fingerprint()
    assert "int8 works for a UniAudio tokenizer, and" in fails(
        ["tokenize", str(clip), str(tmp_path / "b.jsonl"), "--audio-tokenizer", str(codecs / "one"), "--dtype", "int8"],
        capsys,
    )


def test_long_recordings_are_streamed_where_a_tokenizer_can(
    codecs: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AudioTokenizer.from_pretrained(codecs / "one")
    monkeypatch.setattr(type(tokenizer), "max_segment_seconds", property(lambda _: 0.01))
    tokenize_corpus(clip.parent, tokenizer, tmp_path / "streamed.jsonl", batch_size=1)
    tokenize_corpus(clip.parent, tokenizer, tmp_path / "held.jsonl", batch_size=1000)
    assert (tmp_path / "streamed.jsonl").read_text() == (tmp_path / "held.jsonl").read_text()


@pytest.mark.parametrize(("kind", "stream"), [("mimi", False), ("mimi", True), ("dac", False), ("one", False)])
def test_a_recording_goes_through_the_codes_of_another_kind(
    kind: str, stream: bool, codecs: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.wav"
    options = ["--stream"] if stream else []
    main(["reconstruct", str(clip), str(output), "--audio-tokenizer", str(codecs / kind), "--json", *options])
    facts = json.loads(capsys.readouterr().out)
    tokenizer = AudioTokenizer.from_pretrained(codecs / kind)
    sound = soundfile.info(output)
    assert (sound.samplerate, sound.frames) == (
        tokenizer.output_sample_rate,
        round(SECONDS * tokenizer.output_sample_rate),
    )
    assert facts["codes"] == tokenizer.num_codebooks * tokenizer.num_frames(round(RATE * SECONDS), RATE)


def test_settings_that_a_codec_does_not_have_are_refused(codecs: Path, clip: Path, tmp_path: Path) -> None:
    dac = AudioTokenizer.from_pretrained(codecs / "dac")
    settings: list[dict[str, Any]] = [
        {"steps": 4}, {"guidance": 0.7}, {"quality": "fast"}, {"speaker": [0.1]}, {"prompt": str(clip)},
    ]  # fmt: skip
    for setting in settings:
        with pytest.raises(ValueError, match="of DAC makes sound of codes alone and takes none"):
            reconstruct(clip, tmp_path / "out.wav", dac, **setting)
    with pytest.raises(ValueError, match="DAC cannot decode a stream"):
        reconstruct(clip, tmp_path / "out.wav", dac, stream=True)
    half = AudioTokenizer.from_pretrained(codecs / "dac", encoder_only=True)
    with pytest.raises(ValueError, match="DAC has no waveform decoder, so its codes cannot become sound"):
        reconstruct(clip, tmp_path / "out.wav", half)
    assert not (tmp_path / "out.wav").exists()


def test_codes_of_another_kind_are_measured(codecs: Path) -> None:
    dac = load_encoder(str(codecs / "dac"), "cpu")
    assert not dac.can_decode
    clips = [torch.randn(2000, generator=torch.Generator().manual_seed(seed)) * 0.2 for seed in range(2)]
    features = encode_clips(dac, clips, RATE)
    assert (features.num_codebooks, list(features.vectors)) == (3, ["histogram"])
    rows = token_stability(dac, clips, RATE, ["chunks:0.05", "bfloat16", "gain:-6"])
    assert [row.num_codes for row in rows] == [1200] * 3


def test_the_benchmark_of_reconstruction_opens_another_kind(codecs: Path) -> None:
    dac = reconstruction_benchmark._load(str(codecs / "dac"), "cpu")
    assert dac.can_decode
    whole = decoder_fingerprint(dac)
    assert whole
    assert whole != dac.fingerprint()
    assert decoder_fingerprint(AudioTokenizer.from_pretrained(codecs / "dac", encoder_only=True)) is None


# --------------------------------------------------------------------------- files


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_belongs_to_a_codec_is_copied_and_nothing_else(codecs: Path, tmp_path: Path) -> None:
    for name in ("README.md", "notes.txt", "optimizer.pt"):
        (codecs / "dac" / name).write_text("")
    for copy in (copy_audio_tokenizer, copy_model):
        target = tmp_path / copy.__name__
        target.mkdir()
        copy(codecs / "dac", target)
        assert files_of(target) == ["README.md", "config.json", "model.safetensors"]
        whole = AudioTokenizer.from_pretrained(codecs / "dac")
        assert AudioTokenizer.from_pretrained(target).fingerprint() == whole.fingerprint()
    save_audio_tokenizer(whole, tmp_path / "saved")
    assert AudioTokenizer.from_pretrained(tmp_path / "saved").fingerprint() == whole.fingerprint()


def test_a_codec_given_as_the_text_llm_is_told(codecs: Path) -> None:
    with pytest.raises(ValueError, match="is an audio tokenizer: name it with --audio-tokenizer"):
        check_text_llm(codecs / "mimi")


def test_a_folder_of_no_tokenizer_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="holds no audio tokenizer"):
        copy_audio_tokenizer(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


# -------------------------------------------------------- transformers' auto classes


class Signs(CodecTokenizer):
    """One weight, two codes: whether the mean of 10 samples is above it."""

    kind_name = "stabletoken"
    sample_rate = RATE  # type: ignore[assignment]
    num_codebooks = 1  # type: ignore[assignment]
    codebook_size = 2  # type: ignore[assignment]
    can_decode = False  # type: ignore[assignment]
    frame_samples = 10  # type: ignore[assignment]

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([level]))

    @classmethod
    def read(cls, folder: Path, *, encoder_only: bool = False) -> Signs:
        return cls(json.loads((folder / "config.json").read_text())["level"])

    def settings(self) -> dict[str, Any]:
        return {"level": self.level.item(), "hidden_size": "of no model of transformers"}

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        return (waveforms_BN.unflatten(1, (-1, 10)).mean(dim=2) > self.level).long()[:, None]


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``stabletoken`` be the class above."""
    mine = tuple(
        dataclasses.replace(kind, class_path=f"{__name__}:Signs") if kind.name == "stabletoken" else kind
        for kind in KINDS
    )
    monkeypatch.setattr(kinds, "KINDS", mine)
    monkeypatch.setattr(opening, "KINDS", mine)


@pytest.mark.usefixtures("signs")
def test_the_auto_class_finds_what_we_saved(tmp_path: Path) -> None:
    Signs(0.25).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "audiollm_stabletoken"
    found = AutoModelForAudioTokenization.from_pretrained(tmp_path)
    assert type(found) is Signs
    assert found.fingerprint() == Signs(0.25).fingerprint()
    assert AutoConfig.from_pretrained(tmp_path).model_type == "audiollm_stabletoken"


def test_kinds_that_write_a_model_type_of_ours_are_known_to_the_auto_classes() -> None:
    others = [kind for kind in KINDS if kind.name not in UNIAUDIO_KINDS]
    own = [kind.name for kind in others if "transformers_codecs" not in kind.class_path]
    assert own == list(OTHER_KINDS)
