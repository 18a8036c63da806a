"""The conversation: commands, what is kept, what is told, and Ctrl-C; by a partner that says what it is told to."""

from __future__ import annotations

import json
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audiollm.cli.talk.devices import Player
from audiollm.cli.talk.loop import COMMAND_NAMES, HELP, Chat
from audiollm.cli.talk.terminals import Typed, completions
from audiollm.cli.talk.turns import AnswerError, End, Piece, Pieces, Sound, Turn, answered

BEEP = Sound(np.full(2400, 0.1, np.float32), 24_000)


class Lines:
    """A terminal in memory; an exception among the lines is raised where it would be read."""

    def __init__(self, *lines: str | type[BaseException], is_interactive: bool = False) -> None:
        self.is_interactive = is_interactive
        self._lines = list(lines)
        self.shown, self.told, self.prompts = "", [], []  # type: ignore[var-annotated]

    def ask(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if not self._lines:
            raise EOFError
        line = self._lines.pop(0)
        if not isinstance(line, str):
            raise line
        return line

    def show(self, text: str) -> None:
        self.shown += text

    def tell(self, line: str) -> None:
        self.told.append(line)


class Echo:
    """Answers with what it was asked, or with given pieces."""

    name = "echo"
    voices = ("anna", "ben")

    def __init__(self, *answers: Sequence[Piece | BaseException]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[list[str], bool, str | None]] = []
        self.num_closed = 0

    def answer(self, turns: Sequence[Turn], *, is_spoken: bool, voice: str | None) -> Pieces:
        self.asked.append(([turn.question for turn in turns], is_spoken, voice))
        yield from self._given(self._answers.pop(0) if self._answers else [turns[-1].question.upper(), End("stop")])

    def say(self, text: str, *, voice: str | None) -> Pieces:
        self.asked.append(([f"say {text}"], True, voice))
        yield from [BEEP, End("stop")]

    def _given(self, pieces: Sequence[Piece | BaseException]) -> Pieces:
        try:
            for piece in pieces:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.num_closed += 1


def talked(partner: Any, *lines: Any, is_interactive: bool = False, **settings: Any) -> tuple[Chat, Lines, int]:
    terminal = Lines(*lines, is_interactive=is_interactive)
    chat = Chat(partner, terminal, **settings)
    return chat, terminal, chat.run()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a question.wav"
    sf.write(path, np.zeros(1600, np.float32), 16_000)
    return path


def test_lines_are_answered_one_by_one_and_remembered() -> None:
    partner = Echo()
    _, terminal, failed = talked(partner, "one", "", "two")
    assert (terminal.shown, failed, terminal.told) == ("ONE\nTWO\n", 0, [])
    assert [questions for questions, _, _ in partner.asked] == [["one"], ["one", "two"]]


def test_undo_and_new_make_it_forget() -> None:
    partner = Echo()
    chat, _, failed = talked(partner, "one", "two", "/undo", "three", "/new", "four", "/undo", "/undo")
    assert [questions for questions, _, _ in partner.asked] == [["one"], ["one", "two"], ["one", "three"], ["four"]]
    assert (chat.turns, failed) == ([], 1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/bogus", "/bogus is no command"),
        ("/audio", "name a file"),
        ("/audio nowhere.wav what?", "nowhere.wav"),
        ('/audio "open', "a quotation mark is open"),
        ("/record", "say how many seconds"),
        ("/record soon", "/record soon: give seconds"),
        ("/record -1", "use seconds above 0"),
        ("/speak loudly", "/speak on or /speak off"),
        ("/say", "give the text"),
        ("/save", "name a file"),
        ("/save talk.doc", "/save talk.doc: name it .json, .md"),
        ("/save talk.md", "nothing has been said"),
        ("/undo", "nothing has been said"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line_and_the_chat_goes_on(line: str, told: str) -> None:
    _, terminal, failed = talked(Echo(), line, "still there?")
    assert failed == 1
    assert told in terminal.told[-1]
    assert len(terminal.told[-1].splitlines()) == 1
    assert terminal.shown == "STILL THERE?\n"


def test_a_recording_goes_with_its_question_or_with_the_next_line(recording: Path) -> None:
    chat, terminal, failed = talked(
        Echo(), f'/audio "{recording}" who?', f"/audio {recording}", "next", f"/audio {recording}", "",
        f"/audio {recording}", "/undo", "last",
    )  # fmt: skip
    assert failed == 0
    assert [(turn.question, len(turn.recordings)) for turn in chat.turns] == [
        ("who?", 1), ("next", 1), ("", 1), ("last", 0),
    ]  # fmt: skip
    assert "[1 recorded] > " in terminal.prompts
    assert chat.turns[0].recordings[0].content == recording.read_bytes()


def test_a_failed_answer_is_not_remembered_and_its_recording_stays(recording: Path) -> None:
    partner = Echo(["half", AnswerError("the server\nbroke off")])
    chat, terminal, failed = talked(partner, f"/audio {recording}", "one", "two")
    assert terminal.told == ["error: the server broke off"]
    assert terminal.shown == "half\nTWO\n"
    assert [(turn.question, len(turn.recordings)) for turn in chat.turns] == [("two", 1)]
    assert failed == 1


@pytest.mark.parametrize(("reason", "told"), [("length", "--max-new-tokens"), ("lost", "in the middle")])
def test_a_cut_answer_says_so(reason: Any, told: str) -> None:
    _, terminal, _ = talked(Echo(["half", End(reason)]), "one")
    assert terminal.shown == "half\n"
    assert told in terminal.told[0]


def test_ctrl_c_stops_the_answer_and_twice_at_the_prompt_the_program() -> None:
    partner = Echo(["half", KeyboardInterrupt()], [KeyboardInterrupt()])
    chat, terminal, _ = talked(
        partner, "one", "nothing came", KeyboardInterrupt, "two", KeyboardInterrupt, KeyboardInterrupt, "never asked"
    )
    assert terminal.shown == "half\nTWO\n"
    assert [turn.question for turn in chat.turns] == ["one", "two"]
    assert chat.turns[0].end == End("cancelled")
    assert partner.num_closed == 3
    assert [line for line in terminal.told if "stopped" in line] == ["(stopped)"] * 2


def test_spoken_answers_are_saved_where_nothing_plays_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    partner = Echo(["one", BEEP, BEEP, End("stop")])
    chat, terminal, _ = talked(
        partner, "/speak on", "one", "two", "/speak off", "three", "/say four", "/save four.wav", "five"
    )
    assert [(is_spoken, questions[-1]) for questions, is_spoken, _ in partner.asked] == [
        (True, "one"), (True, "two"), (True, "say TWO"), (False, "three"), (True, "say four"), (False, "five"),
    ]  # fmt: skip
    lengths = [len(sf.read(tmp_path / f"audiollm-chat-{number}.wav")[0]) for number in (1, 2, 3)]
    assert lengths == [4800, 2400, 2400]
    assert terminal.told[0] == "0.2 s of sound in audiollm-chat-1.wav"
    assert len(sf.read(tmp_path / "four.wav")[0]) == 2400
    assert partner.asked[-1][0] == ["one", "two", "three", "/say four", "five"]
    assert [turn.question for turn in answered(chat.turns)] == ["one", "two", "three", "five"]


def test_a_voice_is_handed_on_and_answers_are_spoken_then() -> None:
    partner = Echo()
    _, terminal, _ = talked(partner, "/voice", '/voice "an old man"', "/voice none", "/speak off", "one")
    assert terminal.told[0] == "voice: the one of the model; voices by name: anna, ben"
    assert "are spoken now" in terminal.told[1]
    assert partner.asked == [(["one"], False, None)]


def test_a_chat_is_saved_as_records_as_text_and_as_sound(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    partner = Echo(["one", End("stop")], ["two", BEEP, End("stop")])
    _, terminal, failed = talked(
        partner, f"/audio {recording}", "who?", "/speak on", "louder", "/save talk.json", "/save talk.json",
        "/save talk.md", "/save other.md", "/save last.flac", folder="sounds",
    )  # fmt: skip
    assert failed == 2  # the name, and the sound beside it, are taken
    assert "wrote talk.json, talk-2-answer.wav" in terminal.told
    record = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"] * 2
    assert record["messages"][0]["content"] == [
        {"type": "audio", "path": str(recording)}, {"type": "text", "text": "who?"},
    ]  # fmt: skip
    text = (tmp_path / "other.md").read_text(encoding="utf-8")
    assert "**You**: [a question.wav](<" in text
    assert "[other-2-answer.wav](<other-2-answer.wav>)" in text
    assert len(sf.read(tmp_path / "last.flac")[0]) == 2400


def test_history_shows_both_sides(recording: Path) -> None:
    _, terminal, _ = talked(Echo(), "/history", f"/audio {recording}", "who?", "/history")
    assert terminal.told[0] == "nothing has been said yet"
    assert terminal.told[-2:] == [f"1 you: [{recording}] who?", "1 echo: WHO?"]


def test_help_names_every_command() -> None:
    _, terminal, _ = talked(Echo(), "/help", "/quit", "never asked")
    assert [name for name in COMMAND_NAMES if name not in "\n".join(terminal.told)] == ["/help"]
    assert "\n".join(terminal.told) == HELP.strip()


def program(folder: Path, name: str, code: str) -> None:
    """A program of this name that runs some Python."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all there is on the search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize("name", ["aplay", "paplay", "play", "ffplay"])
def test_sound_goes_to_the_systems_player(
    name: str, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program(programs, name, f"open({str(tmp_path / 'heard')!r}, 'wb').write(sys.stdin.buffer.read())")
    assert Player.found() == name
    _, terminal, failed = talked(Echo(["one", BEEP, BEEP, End("stop")]), "one", is_spoken=True, player=name)
    assert (failed, terminal.told) == (0, [])
    heard = (tmp_path / "heard").read_bytes()
    assert heard[:4] == b"RIFF" if name == "ffplay" else len(heard) == 2 * 4800
    assert not list(tmp_path.glob("*.wav"))


@pytest.mark.parametrize("code", ["sys.exit('no such device')", "sys.stdin.buffer.read(); sys.exit('no such device')"])
def test_sound_that_cannot_be_played_is_saved_and_said_so(
    code: str, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program(programs, "aplay", code)
    long = Sound(np.zeros(240_000, np.float32), 24_000)  # more than a pipe holds
    _, terminal, failed = talked(Echo(["one", long, long, End("stop")]), "one", is_spoken=True, player="aplay")
    assert failed == 0
    assert terminal.told[0].startswith("aplay could not play this (no such device)")
    assert len(sf.read(tmp_path / "audiollm-chat-1.wav")[0]) == 480_000


def test_the_microphone_is_asked_by_whatever_program_there_is(programs: Path) -> None:
    chat, terminal, failed = talked(Echo(), "/record 1")
    assert failed == 1
    assert "nothing here records" in terminal.told[-1]
    code = "import signal, wave\nw = wave.open(sys.argv[-1], 'wb'); w.setparams((1, 2, 24000, 0, 'NONE', ''))\n"
    program(programs, "arecord", f"sys.path[:0] = []\n{code}w.writeframes(b'12' * 2400); w.close()")
    chat, terminal, failed = talked(Echo(), "/record 1", "what?")
    assert failed == 0
    assert chat.turns[0].recordings[0].name == "recording.wav"
    assert chat.turns[0].recordings[0].content[44:] == b"12" * 2400
    program(programs, "arecord", "sys.exit('audio open error: No such file or directory')")
    _, terminal, failed = talked(Echo(), "/record 1")
    assert terminal.told[-1] == "error: arecord could not record: audio open error: No such file or directory"


def test_recording_goes_on_until_enter_is_hit(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import signal, time, wave\ndef end(*_):\n    w = wave.open(sys.argv[-1], 'wb')\n"
    code += "    w.setparams((1, 2, 24000, 0, 'NONE', '')); w.writeframes(b'12' * 9); w.close(); sys.exit(1)\n"
    code += "signal.signal(signal.SIGINT, end); open(sys.argv[-1] + '.ready', 'w')\nwhile True: time.sleep(1)"
    program(programs, "arecord", code)

    class Patient(Lines):
        def ask(self, prompt: str) -> str:
            if not prompt:  # Enter is hit once it records
                while not any(tmp_path.glob("*/question.wav.ready")):
                    time.sleep(0.01)
            return super().ask(prompt)

    terminal = Patient("/record", "", "what?", is_interactive=True)
    chat = Chat(Echo(), terminal)
    assert chat.run() == 0
    assert chat.turns[0].recordings[0].content[44:] == b"12" * 9


def test_words_become_commands_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sound.wav").touch()
    assert completions("/sa") == ["/say ", "/save "]
    assert completions("so") == ["sound.wav", "sounds/"]
    assert completions(f"{tmp_path}/sound.") == [f"{tmp_path}/sound.wav"]


def test_what_would_change_the_terminal_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    Typed().show("a\x1b[2Jb\n")
    assert capsys.readouterr().out == "a\ufffd[2Jb\n"
