"""The commands that make sound, on a tiny untrained model with the released decoder layout."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file

from audiollm import reconstruction
from audiollm.cli import main

DECODER = Path(__file__).parents[2] / "fixtures" / "parity" / "decoder"
SAMPLES_PER_CODE = 882


@pytest.fixture(scope="module")
def speaking(folders: Path) -> Path:
    """`codec-out/` with a decoder, and `speaker/`, an Audio-LLM on it."""
    shutil.copytree(folders / "codec", folders / "codec-out")
    (folders / "codec-out" / "decoder").mkdir()
    for name in ("config.yaml", "flow.pt", "hift.pt"):
        shutil.copy(DECODER / name, folders / "codec-out" / "decoder" / name)
    main(
        ["extend", str(folders / "llm"), str(folders / "speaker"), "--audio_tokenizer", str(folders / "codec-out"),
         "--dtype", "float32"]
    )  # fmt: skip
    return folders


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_reconstruct_writes_as_many_samples_as_it_heard(
    speaking: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"out.{suffix}"
    codec = str(speaking / "codec-out")
    main(
        ["reconstruct", str(speaking / "clips" / "a.wav"), str(output), "--audio-tokenizer", codec, "--steps", "2",
         "--json"]
    )  # fmt: skip
    facts = json.loads(capsys.readouterr().out)
    info = sf.info(output)
    assert info.samplerate == 22050
    assert abs(info.frames - 22050) <= SAMPLES_PER_CODE
    assert info.format == suffix.upper()
    assert facts["codes"] == 25
    assert facts["seconds"] == pytest.approx(info.frames / info.samplerate, abs=0.01)


def test_reconstruct_reports_scores_and_pictures(
    speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    main(
        ["reconstruct", str(speaking / "clips" / "a.wav"), str(tmp_path / "out.wav"), "--audio-tokenizer",
         str(speaking / "codec-out"), "--steps", "1", "--report", "--asr", "none", "--json"]
    )  # fmt: skip
    facts = json.loads(capsys.readouterr().out)
    assert facts["mel_distance"] > 0
    folder = tmp_path / "out_report"
    assert facts["report"] == str(folder / "report.html")
    assert {"original.wav", "reconstructed.wav", "metrics.json"} <= {path.name for path in folder.iterdir()}
    assert list(folder.glob("*.png"))


def test_reports_leave_out_what_is_not_installed_and_say_so_before_the_work(
    speaking: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pystoi", None)
    monkeypatch.setitem(sys.modules, "pesq", None)
    said_before: list[str] = []
    work = reconstruction.reconstruct

    def work_after_all_was_said(*given: Any, **more: Any) -> reconstruction.ReconstructionResult:
        said_before.append(caplog.text)
        return work(*given, **more)

    monkeypatch.setattr(reconstruction, "reconstruct", work_after_all_was_said)
    command = ["reconstruct", str(speaking / "clips" / "a.wav"), str(tmp_path / "out.wav"), "--audio-tokenizer"]
    command += [str(speaking / "codec-out"), "--steps", "1", "--report", "--asr", "none", "--json"]
    main(command)
    told = "without STOI, PESQ: pystoi and pesq are not installed, run `pip install 'audiollm[bench]'`"
    assert told in said_before[0]
    facts = json.loads(capsys.readouterr().out)
    assert facts["mcd"] is not None
    assert not {"stoi", "pesq"} & facts.keys()
    with pytest.raises(SystemExit):  # a text that nothing is compared with
        main([*command, "--overwrite", "--text", "hello"])
    assert len(said_before) == 1


def test_speak_obeys_voice_limits_and_seed(speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(name: str, *options: str) -> torch.Tensor:
        main(
            ["speak", "hello there", "--model", str(speaking / "speaker"), "--voice", "an elderly man, slowly",
             "--min-seconds", "0.4", "--max-seconds", "0.4", "--steps", "2", "-o", str(tmp_path / name), *options]
        )  # fmt: skip
        waveform, sample_rate = sf.read(tmp_path / name, dtype="float32")
        assert sample_rate == 22050
        assert len(waveform) / sample_rate == pytest.approx(0.4, abs=0.02)
        return torch.from_numpy(waveform)

    first = speak("first.wav")
    assert torch.equal(first, speak("again.wav"))
    assert not torch.equal(first, speak("other.wav", "--seed", "1"))
    assert len(speak("stream.wav", "--stream", "--json")) == len(first)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["voice"] == "an elderly man, slowly"


def test_speak_is_fast_unless_asked_to_be_exact_and_says_in_what_it_computed(
    speaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoken(name: str, *options: str) -> dict[str, Any]:
        output = str(tmp_path / f"{name}.wav")
        main(
            ["speak", "Hello.", "-o", output, "--model", str(speaking / "speaker"), "--min-seconds", "0.4",
             "--max-seconds", "0.4", "--json", *options]
        )  # fmt: skip
        facts: dict[str, Any] = json.loads(capsys.readouterr().out)
        return facts | {"samples": sf.read(output)[0]}

    fast, exact, published = spoken("a"), spoken("b", "--quality", "exact"), spoken("c", "--steps", "10")
    assert (fast["quality"], exact["quality"]) == ("fast", "exact")
    assert (fast["dtype"], fast["decoder_dtype"]) == ("float32", "float32")
    assert not np.array_equal(fast["samples"], exact["samples"])  # this checkpoint has ten steps of its own
    assert np.array_equal(published["samples"], exact["samples"])
    monkeypatch.setenv("AUDIOLLM_FASTEST", "bfloat16")
    rough = spoken("d", "--quality", "exact")
    assert (rough["dtype"], rough["decoder_dtype"]) == ("bfloat16", "bfloat16")
    assert rough["samples"].shape == exact["samples"].shape
    assert spoken("e", "--quality", "exact", "--dtype", "float32")["decoder_dtype"] == "float32"


def test_convert_keeps_every_weight(speaking: Path, tmp_path: Path) -> None:
    main(["convert", str(DECODER), str(tmp_path / "decoder")])
    converted = load_file(tmp_path / "decoder" / "model.safetensors")
    flow = torch.load(DECODER / "flow.pt", weights_only=True)
    vocoder = torch.load(DECODER / "hift.pt", weights_only=True)
    assert len(converted) == len(flow) + len(vocoder)
    assert torch.equal(converted["flow.input_embedding.weight"], flow["input_embedding.weight"])


def test_speech_data_makes_records_that_ask_for_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [
        {"id": "a", "text": "Good morning", "codes": [1] * 30, "duration_seconds": 1.2, "gender": "female"},
        {"id": "b", "codes": [2] * 30, "duration_seconds": 1.2},
    ]
    (tmp_path / "codes.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    main(["speech-data", str(tmp_path / "codes.jsonl"), str(tmp_path / "speak.jsonl"), "--voice-share", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["records"] == report["with_voice"] == 1
    assert sum(report["left_out"].values()) == 1
    (record,) = [json.loads(line) for line in (tmp_path / "speak.jsonl").read_text().splitlines()]
    request, answer = record["messages"]
    assert "Good morning" in request["content"][0]["text"]
    assert answer["content"][0]["codes"] == [1] * 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reconstruct", "@clips/a.wav", "@out.aac", "--audio-tokenizer", "@codec-out"], "out.aac"),
        (["reconstruct", "@broken.wav", "@out.wav", "--audio-tokenizer", "@codec-out"], "broken.wav"),
        (
            ["reconstruct", "@clips/a.wav", "@out.wav", "--audio-tokenizer", "@codec"],
            "no waveform decoder, so its codes cannot become sound",
        ),
        (["speak", "hi", "--model", "@audio-llm", "-o", "@out.wav"], "no waveform decoder"),
        (["speak", "", "--model", "@speaker", "-o", "@out.wav"], "empty"),
        (["speak", "hi", "--model", "@speaker", "-o", "@out.txt"], "out.txt"),
        (["speak", "hi", "--model", "@speaker", "-o", "@out.wav", "--prompt-audio", "@broken.wav"], "broken.wav"),
        (["convert", "@clips", "@converted"], "clips"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    speaking: Path, audio_llm: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = [str(speaking / argument[1:]) if argument.startswith("@") else argument for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(placed)
    assert stopped.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("audiollm: error: ")
    assert message in error
    assert not list(speaking.glob("out.*"))
    assert not (speaking / "converted").exists()


def test_an_output_that_exists_is_replaced_only_when_asked(
    speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "there.wav"
    output.write_bytes(b"mine")
    model = ["--model", str(speaking / "speaker"), "--steps", "1", "--max-seconds", "0.2", "--seed", "1"]
    commands = [
        ["speak", "Hi.", "-o", str(output), *model],
        ["reconstruct", str(speaking / "clips" / "a.wav"), "-o", str(output), "--steps", "1",
         "--audio-tokenizer", str(speaking / "codec-out")],
    ]  # fmt: skip
    for command in commands:
        output.write_bytes(b"mine")
        with pytest.raises(SystemExit):
            main(command)
        assert "set --overwrite" in capsys.readouterr().err
        assert output.read_bytes() == b"mine"
        main([*command, "--overwrite"])
        assert sf.info(output).frames > 0


def test_speech_that_a_limit_cuts_is_told(
    speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    limits = ["--min-seconds", "0.2", "--max-seconds", "0.2", "--steps", "1", "--overwrite"]
    command = ["speak", "Hi.", "-o", str(tmp_path / "a.wav"), "--model", str(speaking / "speaker"), *limits]
    for more in ([], ["--stream"]):
        caplog.clear()
        main([*command, *more])
        assert caplog.text.count("--max-seconds") == 1
        capsys.readouterr()
        main([*command, *more, "--json"])
        assert json.loads(capsys.readouterr().out)["finish_reason"] == "length"


def test_the_channel_that_reconstruct_hears_can_be_chosen(
    speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the mean of both channels meets the second one's hole."""
    samples = np.random.default_rng(0).normal(0, 0.1, (16000, 2))
    samples[100, 1] = np.nan
    sf.write(tmp_path / "in.wav", samples, 16000, subtype="FLOAT")
    codec = str(speaking / "codec-out")
    command = ["reconstruct", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--audio-tokenizer", codec]
    for options in ([], ["--mono", "first"], ["--mono", "first", "--stream"]):
        main([*command, "--steps", "1", "--json", "--overwrite", *options])
        assert json.loads(capsys.readouterr().out)["mono"] == "first"
    for more in ([], ["--stream"]):
        with pytest.raises(SystemExit):
            main([*command, "--overwrite", "--mono", "mean", *more])
        assert "holds nan at sample 100" in capsys.readouterr().err


def test_a_report_that_is_there_is_kept(speaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out_report").mkdir()
    with pytest.raises(SystemExit):
        main(["reconstruct", str(speaking / "clips" / "a.wav"), str(tmp_path / "out.wav"), "--report"])
    assert "out_report exists already" in capsys.readouterr().err
