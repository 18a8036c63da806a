"""The conversation: lines that are questions or commands, answers as they come, and what happens to their sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from audiollm.data.audio.writing import save_audio

from .devices import Player, record
from .saving import free_path, save_chat
from .turns import AnswerError, End, Partner, Pieces, Recording, Sound, Turn

HELP = """\
text                     ask; an empty line sends recordings without words
/audio FILE [question]   a recording goes along, with this question or the next line
/record [seconds]        the same from the microphone
/say TEXT                hear a text spoken
/speak on|off            answers with sound, or text alone
/voice [WORDS]           the voice of answers: "an elderly man, slowly", or a name; /voice none for the model's own
/save FILE               .json or .md: the chat; .wav, .flac, .ogg, .opus, .mp3: the last spoken answer
/history                 what was said
/undo                    take back the last question and its answer
/new                     begin anew
/quit                    end; so does Ctrl-D. Ctrl-C stops an answer
"""
_ENDINGS = {
    "length": "(cut by the limit of tokens: --max-new-tokens)",
    "lost": "(the server ended this answer in the middle)",
    "cancelled": "(stopped)",
}


class Terminal(Protocol):
    """Where lines come from and answers go."""

    is_interactive: bool

    def ask(self, prompt: str) -> str:
        """The next line; EOFError at the end, KeyboardInterrupt for Ctrl-C."""
        ...

    def show(self, text: str) -> None:
        """Answers, as they come."""
        ...

    def tell(self, line: str) -> None:
        """What is no answer."""
        ...


class _Ended(Exception):  # noqa: N818  # no error: the user has had enough
    """The chat is over."""


@dataclass(eq=False)
class Chat:
    """A chat with a model.

    Attributes:
        partner: the model.
        terminal: where lines come from and answers go.
        is_spoken: whether answers have sound.
        voice: by name or in words; None: the model's own.
        folder: gets the sound of every answer; None: sound is kept only where nothing plays it.
        player: program that plays sound; None: there is none.
    """

    partner: Partner
    terminal: Terminal
    is_spoken: bool = False
    voice: str | None = None
    folder: str | None = None
    player: str | None = None
    turns: list[Turn] = field(default_factory=list)
    _attached: list[Recording] = field(default_factory=list)

    def run(self) -> int:
        """Goes on until the end of the input; returns how many lines failed."""
        num_failed, is_leaving = 0, False
        while True:
            try:
                line = self.terminal.ask(f"[{len(self._attached)} recorded] > " if self._attached else "> ")
            except EOFError:
                return num_failed
            except KeyboardInterrupt:
                if is_leaving:
                    return num_failed
                is_leaving = True
                self.terminal.tell("Ctrl-C again, or /quit, ends the chat")
                continue
            is_leaving = False
            try:
                self._do(line.strip())
            except _Ended:
                return num_failed
            except KeyboardInterrupt:
                self.terminal.tell("(stopped)")
            except (AnswerError, ValueError, OSError) as error:
                num_failed += 1
                self.terminal.tell(f"error: {' '.join(str(error).split())}")

    def _do(self, line: str) -> None:
        if not line.startswith("/"):
            if line or self._attached:
                self._ask(line)
            return
        name, _, rest = line[1:].partition(" ")
        command = _COMMANDS.get(name)
        if command is None:
            raise ValueError(f"/{name} is no command: /help lists them")
        command(self, rest.strip())

    # Answers

    def _ask(self, question: str) -> None:
        turn = Turn(question, self._attached)
        self._hear(turn, self._spoken(turn) if self.is_spoken else self._answer(turn))
        self._attached = []
        self.turns.append(turn)

    def _answer(self, turn: Turn) -> Pieces:
        return self.partner.answer([*self.turns, turn], is_spoken=self.is_spoken, voice=self.voice)

    def _spoken(self, turn: Turn) -> Pieces:
        """An answer with sound: what a model only wrote, it is asked to read out."""
        yield from self._answer(turn)
        if turn.answer.strip() and not turn.sounds:
            try:
                yield from (one for one in self.partner.say(turn.answer, voice=self.voice) if isinstance(one, Sound))
            except (AnswerError, ValueError) as error:  # the answer itself is there
                self.terminal.tell(f"\n(not spoken: {' '.join(str(error).split())})")

    def _say(self, text: str) -> None:
        if not text:
            raise ValueError("/say: give the text, such as /say Good morning.")
        turn = Turn(f"/say {text}", is_aside=True)
        self._hear(turn, self.partner.say(text, voice=self.voice))
        if turn.sound is None:
            raise AnswerError("the model said nothing")
        self.turns.append(turn)

    def _hear(self, turn: Turn, pieces: Pieces) -> None:
        """Takes an answer to its end, or to where the user stops it; what has come until then is kept."""
        output = _Sounding(self.player)
        try:
            for piece in pieces:
                turn.take(piece)
                if isinstance(piece, str):
                    self.terminal.show(piece)
                elif isinstance(piece, Sound):
                    output.play(piece)
            self._end_line(turn)
            problem = output.finish()
        except KeyboardInterrupt:
            output.stop()
            pieces.close()
            if not (turn.answer or turn.sounds):
                raise
            turn.end = turn.end or End("cancelled")
            self._end_line(turn)
            problem = ""
        except BaseException:
            output.stop()
            if turn.answer:
                self.terminal.show("\n")
            raise
        if problem:
            self.terminal.tell(f"{self.player} could not play this ({problem}): sound is saved from here on")
            self.player = None
        self._keep_sound(turn)

    def _end_line(self, turn: Turn) -> None:
        if turn.answer or not turn.sounds:
            self.terminal.show("\n")
        if turn.end is not None and turn.end.reason in _ENDINGS:
            self.terminal.tell(_ENDINGS[turn.end.reason])

    def _keep_sound(self, turn: Turn) -> None:
        sound = turn.sound
        if sound is None or (self.folder is None and self.player is not None):
            return
        folder = Path(self.folder or ".")
        folder.mkdir(parents=True, exist_ok=True)
        path = free_path(folder, "audiollm-chat")
        save_audio(path, sound.waveform, sound.sample_rate)
        self.terminal.tell(f"{len(sound.waveform) / sound.sample_rate:.1f} s of sound in {path}")

    # Commands

    def _audio(self, rest: str) -> None:
        if not rest:
            raise ValueError("/audio: name a file, such as /audio question.wav What is said?")
        path, question = _file_and_question(rest)
        self._attached.append(Recording.of_file(path))
        if question:
            self._ask_or_detach(question)
        elif self.terminal.is_interactive:
            self.terminal.tell(f"{path} goes with the next line")

    def _ask_or_detach(self, question: str) -> None:
        """Asks about the recording that was attached with the question; where that fails, it is gone with it."""
        try:
            self._ask(question)
        except BaseException:
            self._attached = []
            raise

    def _record(self, rest: str) -> None:
        if not rest and not self.terminal.is_interactive:
            raise ValueError("/record: say how many seconds, such as /record 5")
        try:
            seconds = float(rest) if rest else None
        except ValueError as error:
            raise ValueError(f"/record {rest}: give seconds, such as /record 5") from error
        self.terminal.tell("recording …" if seconds else "recording …; Enter ends it")
        self._attached.append(record(seconds, lambda: self.terminal.ask("")))

    def _speak(self, rest: str) -> None:
        if rest not in ("on", "off"):
            raise ValueError(f"answers are {'spoken' if self.is_spoken else 'text alone'}: /speak on or /speak off")
        self.is_spoken = rest == "on"

    def _voice(self, rest: str) -> None:
        if not rest:
            known = ", ".join(self.partner.voices)
            told = f"; voices by name: {known}" if known else ""
            self.terminal.tell(f"voice: {self.voice or 'the one of the model'}{told}")
            return
        self.voice = None if rest == "none" else rest.strip("\"'")
        if self.voice and not self.is_spoken:
            self.is_spoken = True
            self.terminal.tell("answers are spoken now: /speak off for text alone")

    def _save(self, rest: str) -> None:
        if not rest:
            raise ValueError("/save: name a file, such as /save talk.md")
        self.terminal.tell(f"wrote {', '.join(save_chat(rest.strip(chr(34)), self.turns, self.partner.name))}")

    def _history(self, rest: str) -> None:
        for number, turn in enumerate(self.turns, 1):
            names = "".join(f"[{one.name}] " for one in turn.recordings)
            seconds = "" if turn.sound is None else f" [{len(turn.sound.waveform) / turn.sound.sample_rate:.1f} s]"
            self.terminal.tell(f"{number} you: {names}{turn.question}")
            self.terminal.tell(f"{number} {self.partner.name}: {turn.answer}{seconds}")
        if not self.turns:
            self.terminal.tell("nothing has been said yet")

    def _undo(self, rest: str) -> None:
        if self._attached:
            self.terminal.tell(f"{self._attached.pop().name} does not go along")
        elif self.turns:
            self.terminal.tell(f"taken back: {self.turns.pop().question or 'a recording'}")
        else:
            raise ValueError("/undo: nothing has been said yet")

    def _new(self, rest: str) -> None:
        self.turns, self._attached = [], []

    def _help(self, rest: str) -> None:
        for line in HELP.splitlines():
            self.terminal.tell(line)

    def _quit(self, rest: str) -> None:
        raise _Ended


_COMMANDS: dict[str, Callable[[Chat, str], None]] = {
    "audio": Chat._audio,
    "record": Chat._record,
    "say": Chat._say,
    "speak": Chat._speak,
    "voice": Chat._voice,
    "save": Chat._save,
    "history": Chat._history,
    "undo": Chat._undo,
    "new": Chat._new,
    "help": Chat._help,
    "quit": Chat._quit,
}
COMMAND_NAMES = tuple(f"/{name}" for name in _COMMANDS)


class _Sounding:
    """The sound of one answer on its way to the loudspeaker, if there is one."""

    def __init__(self, program: str | None) -> None:
        self._program = program
        self._player: Player | None = None

    def play(self, sound: Sound) -> None:
        if self._program is not None:
            self._player = self._player or Player(self._program)
            self._player.play(sound)

    def finish(self) -> str:
        return "" if self._player is None else self._player.finish()

    def stop(self) -> None:
        if self._player is not None:
            self._player.stop()


def _file_and_question(rest: str) -> tuple[str, str]:
    """The file, which may be in quotes or have spaces in its name, and the words behind it."""
    if Path(rest).expanduser().is_file():
        return str(Path(rest).expanduser()), ""
    if rest[0] in "\"'":
        path, closed, question = rest[1:].partition(rest[0])
        if not closed:
            raise ValueError(f"/audio {rest}: a quotation mark is open")
    else:
        path, _, question = rest.partition(" ")
    return str(Path(path).expanduser()), question.strip()
