"""`audiollm chat` as it is run: lines through a pipe, answers by mini, in this process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from audiollm.cli import main
from audiollm.cli.app import spelt_out

CLIP = Path(__file__).parents[4] / "data/corpora/sample/asterisk/en/agent-incorrect.opus"


def test_lines_of_a_pipe_are_answered_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = f"/audio {CLIP} What is said?\n/speak on\n/audio {CLIP}\nIs the speaker a man or a woman?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    main(["chat", "mini", "--seed", "1", "--output-dir", str(tmp_path / "sounds")])
    captured = capsys.readouterr()
    assert captured.out == "Login incorrect. Please enter your agent number followed by the pound key.\nA woman.\n"
    assert "s of sound in" in captured.err
    assert (tmp_path / "sounds" / "audiollm-chat-1.wav").stat().st_size > 10_000


def test_a_line_that_fails_fails_the_run_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/audio nowhere.wav What?\n/audio {CLIP} What is said?\n"))
    with pytest.raises(SystemExit) as stopped:
        main(["chat"])
    captured = capsys.readouterr()
    assert stopped.value.code == 1
    assert captured.out.startswith("Login incorrect.")
    assert "error: nowhere.wav: no such file\n" in captured.err
    assert captured.err.splitlines()[-1] == "audiollm: error: 1 of the lines could not be answered"


def test_the_model_may_be_given_by_its_place() -> None:
    assert spelt_out(["chat", "folder", "--speak"]) == ["chat", "--model=folder", "--speak"]
    assert spelt_out(["chat", "--voice", "a man", "folder"]) == ["chat", "--model=folder", "--voice", "a man"]
    assert spelt_out(["serve", "folder", "--port", "1"]) == ["serve", "--model=folder", "--port", "1"]
    assert spelt_out(["chat", "--speak"]) == ["chat", "--speak"]
