"""``-``, several recordings and folders where sound is made; what is wrong is told before a model is loaded."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile as sf

from audiollm.cli import main

CLIPS = sorted((Path(__file__).parents[3] / "data/corpora/sample/asterisk/en").glob("*.opus"))
QUICK = ["--steps", "1"]
SHORT = [*QUICK, "--max-seconds", "0.4", "--min-seconds", "0.4"]
Pipe = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings, one of them in a folder of its own."""
    target = tmp_path / "recordings"
    (target / "more").mkdir(parents=True)
    shutil.copy(CLIPS[0], target / "a.opus")
    shutil.copy(CLIPS[1], target / "more" / "b.opus")
    return target


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Puts bytes into stdin."""

    def put(contents: bytes, is_terminal: bool = False) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(contents), isatty=lambda: is_terminal)
        monkeypatch.setattr("sys.stdin", stdin)

    return put


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a model is loaded."""

    def load(*_: object) -> None:
        raise AssertionError("a model is loaded")

    for name in ("sound.load_audio_llm", "sound.load_audio_tokenizer", "corpora.load_audio_tokenizer"):
        monkeypatch.setattr(f"audiollm.cli.{name}", load)


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def fails(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audiollm: error:")]
    assert len(lines) == 1
    return lines[0]


def sound(contents: bytes) -> list[float]:
    samples, _ = sf.read(io.BytesIO(contents), dtype="int16")
    return list(samples)


# --- pipes ------------------------------------------------------------------------------------------------------------


def test_a_text_and_a_voice_come_through_stdin(tmp_path: Path, pipe: Pipe) -> None:
    run("speak", "The kettle is on.", "-o", tmp_path / "a.wav", *SHORT)
    pipe(b"The kettle is on.\n")
    run("speak", "-", "-o", tmp_path / "b.wav", *SHORT)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_sound_goes_to_stdout_and_all_else_to_stderr(tmp_path: Path, stream: list[str]) -> None:
    run("speak", "Hello.", "-o", tmp_path / "a.wav", *SHORT, *stream)
    command = [sys.executable, "-m", "audiollm", "speak", "-", "-o", "-", *SHORT, *stream]
    done = subprocess.run(command, input=b"Hello.", capture_output=True, check=True, env=dict(os.environ))
    assert sound(done.stdout) == sound((tmp_path / "a.wav").read_bytes())
    assert b"finish reason" in done.stderr


def test_reconstruct_reads_stdin_and_writes_stdout(tmp_path: Path) -> None:
    run("reconstruct", CLIPS[0], tmp_path / "a.wav", *QUICK)
    for stream in ([], ["--stream"]):
        command = [sys.executable, "-m", "audiollm", "reconstruct", "-", "-", *QUICK, "--json", *stream]
        done = subprocess.run(command, input=CLIPS[0].read_bytes(), capture_output=True, check=True)
        told = json.loads(done.stderr.splitlines()[-1])
        assert (told["source"], told["output"]) == ("-", "-")
        assert len(sound(done.stdout)) == sf.info(tmp_path / "a.wav").frames
        if not stream:
            assert sound(done.stdout) == sound((tmp_path / "a.wav").read_bytes())


@pytest.mark.usefixtures("no_model")
def test_pipes_that_give_or_take_nothing_are_told(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(b"")
    assert "nothing came" in fails(["speak", "-", "-o", "a.wav"], capsys)
    pipe(b"", is_terminal=True)
    assert "pipe one in" in fails(["speak", "-", "-o", "a.wav"], capsys)
    pipe(b"\xff\xfe")
    assert "no UTF-8" in fails(["speak", "-", "-o", "a.wav"], capsys)
    pipe(b"text")
    twice = fails(["speak", "-", "-o", "a.wav", "--prompt-audio", "-"], capsys)
    assert "text and prompt-audio" in twice
    assert "given twice" in fails(["reconstruct", "-", "a.wav", "--speaker-audio", "-"], capsys)
    assert "-: " in fails(["speak", "Hi.", "-o", "a.wav", "--prompt-audio", "-"], capsys)
    assert "save the recording first" in fails(["tokenize", "-", "out.jsonl"], capsys)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for command in (["speak", "Hi.", "-o", "-"], ["reconstruct", str(CLIPS[0]), "-"]):
        assert "which is a terminal" in fails([*command], capsys)


# --- several recordings and folders -----------------------------------------------------------------------------------


def test_a_folder_gets_a_sound_for_each_and_keeps_what_is_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    run("reconstruct", folder, "-o", output, *QUICK, "--format", "flac", "--json")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["source"] for one in told] == [str(folder / "a.opus"), str(folder / "more" / "b.opus")]
    assert [one["output"] for one in told] == [str(output / "a.flac"), str(output / "more" / "b.flac")]
    (output / "a.flac").write_bytes(b"mine")
    run("reconstruct", folder / "a.opus", *QUICK, folder / "more", output, "--format", "flac")
    assert (output / "a.flac").read_bytes() == b"mine"
    assert "1 of 2 files" in caplog.text
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{folder / 'more' / 'b.opus'}: ")
    assert line.endswith(str(output / "b.flac"))


def test_bad_recordings_are_skipped_when_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad\nname.wav").write_bytes(b"no sound")
    command = ["reconstruct", folder, tmp_path / "out", *QUICK]
    assert "bad" in fails([*command], capsys)
    assert not (tmp_path / "out").exists()
    run(*command, "--skip-bad")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "bad\\nname.wav: skipped: " in lines[1]
    assert "none of the 1" in fails(
        ["reconstruct", folder / "bad\nname.wav", tmp_path / "out", "--skip-bad", *QUICK], capsys
    )


@pytest.mark.usefixtures("no_model")
def test_what_is_wrong_is_told_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, output = folder / "a.opus", tmp_path / "out.wav"
    (tmp_path / "a.opus").write_bytes(one.read_bytes())
    wrong: list[tuple[list[object], str]] = [
        ([folder, output], "takes the sound of one recording, and 2 are given"),
        ([folder, "-"], "takes the sound of one recording"),
        ([one, tmp_path / "a.opus", tmp_path / "out"], "would both be written to"),
        ([one, one], "is the original itself"),
        ([one, output, "--format", "flac"], "contradict each other"),
        ([one, "-", "--report"], "name a file"),
        ([one, output, "--asr", "none"], "--asr is for the report"),
        ([one, output, "--text", "hello"], "--text is for the report"),
        ([one, output, "--language", "fr"], "--language is for the report"),
        ([folder, tmp_path / "out", "--report", "--text", "hello"], "what is said in one recording"),
        ([one, output, "--speaker-encoder", "resemblyzer"], "needs --speaker-audio"),
        ([one, output, "--prompt-audio", tmp_path / "missing.wav"], "missing.wav"),
        ([tmp_path / "missing.wav", output], "missing.wav"),
        ([one, tmp_path / "out.txt"], "out.txt"),
    ]
    for arguments, message in wrong:
        assert message in fails(["reconstruct", *arguments], capsys)
    assert not list(tmp_path.glob("out*"))
    assert "speaker-audio" in fails(["speak", "Hi.", "-o", output, "--speaker-encoder", "resemblyzer"], capsys)
    assert "nowhere" in fails(["speak", "Hi.", "-o", output, "--model", "./nowhere"], capsys)


def test_tokenize_takes_several_recordings_and_folders(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("tokenize", folder, tmp_path / "whole.jsonl")
    run("tokenize", folder / "a.opus", "--batch-size", "2", folder / "more", "-o", tmp_path / "parts.jsonl")

    def codes(name: str) -> list[list[int]]:
        return [json.loads(line)["codes"] for line in (tmp_path / name).read_text().splitlines()]

    assert codes("whole.jsonl") == codes("parts.jsonl")
    message = fails(["tokenize", tmp_path / "whole.jsonl", folder, tmp_path / "x.jsonl"], capsys)
    assert "is a manifest" in message


def test_of_a_long_text_only_the_beginning_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "The kettle is on. " * 20
    run("speak", text, "-o", tmp_path / "a.wav", *SHORT)
    assert "(359 characters)" in capsys.readouterr().out
    run("speak", text, "-o", tmp_path / "b.wav", *SHORT, "--json")
    assert text.strip() in json.loads(capsys.readouterr().out)["text"]
