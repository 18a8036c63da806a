"""Hearing commands: files, folders and pipes in; the terminal, JSON lines that go on, and files out; nothing lost."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from audiollm.cli import main
from audiollm.cli.console import load_audio_llm
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.writing import save_audio
from audiollm.transcription import Transcriber

SPEECH = Path(__file__).parents[3] / "data/corpora/sample/asterisk/en"
SHORT = ["--max-new-tokens", "6"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings of speech, one of them in a folder of its own, and a file that is none."""
    target = tmp_path / "recordings"
    (target / "more").mkdir(parents=True)
    for name, clip in zip(("b.opus", "a.opus", "more/a.opus"), sorted(SPEECH.glob("*.opus")), strict=False):
        shutil.copy(clip, target / name)
    (target / "notes.txt").write_text("none")
    return target


def _run(arguments: Sequence[object]) -> None:
    main([str(argument) for argument in arguments])


def _fails(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_status:
        _run(arguments)
    assert exit_status.value.code != 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("audiollm: error:") for line in lines) == 1
    return next(line for line in lines if line.startswith("audiollm: error:"))


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a model is loaded."""

    def load(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("audiollm.cli.listening.load_audio_llm", load)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch):
    """Puts bytes into stdin."""

    def put(contents: bytes, is_terminal: bool = False) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(contents), isatty=lambda: is_terminal)
        monkeypatch.setattr("sys.stdin", stdin)

    return put


@pytest.mark.parametrize("command", ["transcribe", "describe"])
def test_a_folder_stands_for_its_recordings_in_order(command, folder, tmp_path, capsys, caplog):
    _run([command, folder, *SHORT, "-o", tmp_path / "out.jsonl"])
    records = _lines(tmp_path / "out.jsonl")
    assert [record["audio"] for record in records] == [str(folder / n) for n in ("a.opus", "b.opus", "more/a.opus")]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{tmp_path / 'out.jsonl'} holds the answers about 3 of 3 recordings" in caplog.text
    for switch in ("--json", "--jsonl"):
        _run([command, folder, *SHORT, switch])
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == records


def test_a_recording_comes_through_stdin(folder, pipe, capsys):
    _run(["transcribe", folder / "a.opus", *SHORT])
    expected = capsys.readouterr().out
    pipe((folder / "a.opus").read_bytes())
    _run(["transcribe", "-", *SHORT])
    assert capsys.readouterr().out == expected


def test_a_pipe_without_a_recording_is_told(pipe, capsys, no_model):
    pipe(b"")
    assert "nothing came" in _fails(["transcribe", "-"], capsys)
    pipe(b"", is_terminal=True)
    assert "pipe one in" in _fails(["describe", "-"], capsys)
    pipe(b"hello, this is no recording at all")
    assert "-" in _fails(["transcribe", "-"], capsys)
    assert "given twice" in _fails(["transcribe", "-", "-"], capsys)


def test_a_folder_gets_a_file_for_each_and_keeps_what_is_there(folder, tmp_path, caplog, capsys):
    output = tmp_path / "out"
    (output / "more").mkdir(parents=True)
    (output / "more/a.srt").write_text("mine")
    _run(["transcribe", folder, *SHORT, "-o", output, "--format", "srt"])
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*.srt")) == [
        "a.srt", "b.srt", "more/a.srt"
    ]  # fmt: skip
    assert (output / "more/a.srt").read_text() == "mine"
    assert "1 of 3 files" in caplog.text
    assert f"{output} holds the answers about 3 of 3 recordings" in caplog.text
    _run(["transcribe", folder, *SHORT, "-o", output, "--format", "srt", "--overwrite"])
    assert "-->" in (output / "more/a.srt").read_text()


@pytest.mark.parametrize("ending", ["txt", "json", "srt", "vtt"])
def test_a_file_is_of_the_kind_that_its_ending_says(ending, folder, tmp_path, capsys):
    _run(["transcribe", folder / "a.opus", *SHORT, "-o", tmp_path / f"a.{ending}"])
    _run(["transcribe", folder / "a.opus", *SHORT, "--format", ending])
    shown = capsys.readouterr().out
    written = (tmp_path / f"a.{ending}").read_text()
    assert shown.strip() == written.strip()
    assert written.strip()


def test_a_stopped_run_goes_on_where_it_was(folder, tmp_path, monkeypatch, caplog):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    _run(["describe", folder, *SHORT, "-o", whole])
    asked = []

    class Stopping:
        def __init__(self, llm, stop):
            self._llm, self._stop, self.processor = llm, stop, llm.processor

        def chat(self, conversation, **options):
            asked.append(conversation)
            if len(asked) == self._stop:
                raise KeyboardInterrupt
            return self._llm.chat(conversation, **options)

    def stopping_at(stop):
        monkeypatch.setattr(
            "audiollm.cli.listening.load_audio_llm", lambda *args: Stopping(load_audio_llm(*args), stop)
        )

    stopping_at(3)
    with pytest.raises(SystemExit, match="130"):
        _run(["describe", folder, *SHORT, "-o", output])
    assert not output.exists()
    stopping_at(0)
    asked.clear()
    _run(["describe", folder, *SHORT, "-o", output])
    assert len(asked) == 1
    assert "goes on behind 2" in caplog.text
    assert output.read_bytes() == whole.read_bytes()


def test_another_question_does_not_go_on_with_the_answers(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "out.jsonl.partial").write_text('{"audio": "x", "text": "A dog."}\n')
    (tmp_path / "out.jsonl.partial.json").write_text("{}")
    error = _fails(["describe", folder, "-o", tmp_path / "out.jsonl", *SHORT], capsys)
    assert "out.jsonl.partial" in error
    assert "delete it" in error


def test_bad_recordings_are_listed_beside_the_answers(folder, tmp_path, capsys, caplog):
    (folder / "aa.wav").write_bytes(b"RIFF0000")
    error = _fails(["transcribe", folder, *SHORT, "-o", tmp_path / "out.jsonl"], capsys)
    assert "aa.wav" in error
    assert not (tmp_path / "out.jsonl").exists()
    _run(["transcribe", folder, *SHORT, "-o", tmp_path / "out.jsonl", "--skip-bad"])
    assert "holds the answers about 3 of 4 recordings" in caplog.text
    assert len(_lines(tmp_path / "out.jsonl")) == 3
    (rejected,) = _lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert rejected["index"] == 1
    assert "aa.wav" in rejected["source"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["missing.wav"], "missing.wav"),
        (["{folder}", "-o", "a.txt"], "a.txt holds the answer about one recording, and 3"),
        (["{folder}", "--format", "srt"], "-o FOLDER"),
        (["{folder}/a.opus", "-o", "a.doc"], "doc"),
        (["{folder}/a.opus", "-o", "a.txt", "--format", "srt"], "contradict"),
        (["{folder}/a.opus", "-o", "a.jsonl", "--format", "srt"], "contradict"),
        (["{folder}/a.opus", "--json", "--format", "srt"], "contradict"),
        (["{folder}/a.opus", "-o", "a.jsonl", "--json"], "-o FILE.jsonl"),
        (["{folder}/a.opus", "{folder}/more/a.opus", "-o", "out"], "both be written"),
        (["{folder}/a.opus", "{folder}/a.opus", "-o", "out"], "is given twice"),
        (["{folder}/a.opus", "--model", "./nowhere"], "nowhere"),
        (["{folder}/a.opus", "-o", "{folder}/notes.txt/out"], "notes.txt is a file"),
        (["{folder}/a.opus", "-o", "{folder}/notes.txt/out.srt"], "notes.txt is a file"),
        (["{folder}/a.opus", "--skip-bad", "--batch-size", "0"], "--batch-size=0"),
        (["{folder}/a.opus", "--skip-bad", "--longest-seconds", "0.5"], "--longest-seconds=0.5"),
        (["{folder}/a.opus", "--skip-bad", "--max-new-tokens", "0"], "--max-new-tokens=0"),
        (["{folder}/notes.txt"], "notes.txt"),
        (["{folder}/empty"], "holds neither audio"),
    ],
)
def test_what_cannot_be_is_told_before_a_model_is_loaded(more, named, folder, tmp_path, capsys, no_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "empty").mkdir()
    assert named in _fails(["transcribe", *(str(one).format(folder=folder) for one in more)], capsys)


def test_recordings_of_one_folder_that_share_a_name_are_not_sent_to_the_folder_that_holds_both(
    folder, tmp_path, capsys, no_model
):
    shutil.copy(folder / "a.opus", folder / "a.ogg")
    error = _fails(["transcribe", folder, "-o", tmp_path / "out"], capsys)
    assert "both be written" in error
    assert "folder that holds both" not in error


def test_a_bad_recording_is_named_once(folder, capsys):
    (folder / "aa.wav").write_bytes(b"RIFF0000")
    _run(["transcribe", folder, *SHORT, "--skip-bad"])
    (skipped,) = (line for line in capsys.readouterr().out.splitlines() if ": skipped: " in line)
    assert skipped.count("aa.wav") == 1


def test_names_with_line_breaks_stay_on_their_line(folder, capsys):
    (folder / "a.opus").rename(folder / "\u00fc\nz.opus")
    _run(["transcribe", folder, *SHORT])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_recording_that_changed_does_not_go_on_with_the_answers(folder, tmp_path, monkeypatch, capsys):
    segments = Transcriber.segments

    def stopped_at_b(transcriber, audio):
        if audio.endswith("b.opus"):
            raise KeyboardInterrupt
        return segments(transcriber, audio)

    monkeypatch.setattr(Transcriber, "segments", stopped_at_b)
    with pytest.raises(SystemExit):
        _run(["transcribe", folder, *SHORT, "-o", tmp_path / "out.jsonl"])
    shutil.copy(sorted(SPEECH.glob("*.opus"))[5], folder / "a.opus")
    monkeypatch.undo()
    assert "recordings" in _fails(["transcribe", folder, *SHORT, "-o", tmp_path / "out.jsonl"], capsys)


def test_a_long_recording_becomes_segments_that_cover_it(folder, tmp_path, capsys):
    waveform, rate = load_audio(folder / "a.opus", 16000)
    long = tmp_path / "long.wav"
    save_audio(long, waveform.repeat(20), rate)
    _run(["transcribe", long, *SHORT, "--json", "--longest-seconds", "10"])
    record = json.loads(capsys.readouterr().out)
    segments = record["segments"]
    assert segments[0]["start"] == 0
    assert segments[-1]["end"] == pytest.approx(20 * len(waveform) / rate)
    assert all(one["end"] == other["start"] for one, other in itertools.pairwise(segments))
    assert all(one["end"] - one["start"] <= 10 for one in segments)


def test_silence_is_told(tmp_path, capsys, caplog):
    save_audio(tmp_path / "silent.wav", torch.zeros(16000), 16000)
    _run(["transcribe", tmp_path / "silent.wav", "--json"])
    assert json.loads(capsys.readouterr().out)["finish_reason"] == "silent"
    assert "nothing is heard" in caplog.text
