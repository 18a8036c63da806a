"""Loudspeaker and microphone by whatever program the system has for them; audiollm brings none."""
# Shapes: N samples.

from __future__ import annotations

import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from audiollm.data.audio.writing import open_audio_pipe, save_audio

from .turns import AnswerError, Recording, Sound

_PLAYERS: dict[str, Callable[[int], list[str]]] = {
    "aplay": lambda rate: ["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(rate), "-"],
    "paplay": lambda rate: ["--raw", "--format=s16le", "--channels=1", f"--rate={rate}"],
    "ffplay": lambda rate: ["-loglevel", "error", "-nodisp", "-autoexit", "-i", "-"],
    "play": lambda rate: ["-q", "-t", "raw", "-e", "signed", "-b", "16", "-c", "1", "-r", str(rate), "-"],
    "afplay": lambda rate: [],
}
"""Program → its arguments for a rate in Hz. ffplay gets WAV, whose header tells the rate in every version of it; afplay
reads files alone, and the others get raw samples."""
_WAV, _FILES = "ffplay", "afplay"
_UNHEARD = b"audio open failed"  # what ffplay says without a loudspeaker, before it ends as if all were well
_IS_MAC = sys.platform == "darwin"

_RECORDERS: dict[str, Callable[[str, float | None], list[str]]] = {
    "arecord": lambda path, seconds: [
        "-q", "-f", "S16_LE", "-r", "24000", "-c", "1", *(["-d", f"{seconds:.0f}"] if seconds else []), path,
    ],
    "rec": lambda path, seconds: [
        "-q", "-r", "24000", "-c", "1", "-b", "16", path, *(["trim", "0", f"{seconds:g}"] if seconds else []),
    ],
    "ffmpeg": lambda path, seconds: [
        "-nostdin", "-loglevel", "error", "-y", *(["-f", "avfoundation", "-i", ":0"] if _IS_MAC else
        ["-f", "alsa", "-i", "default"]), *(["-t", f"{seconds:g}"] if seconds else []), "-ac", "1", path,
    ],
}  # fmt: skip
_MAX_SECONDS = 600.0


class Player:
    """Plays sound while it comes, in a thread of its own, so that text need not wait for it.

    Args:
        program: one of the system's.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self._waiting: queue.Queue[Sound | None] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._has_stopped = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="audiollm-play", daemon=True)
        self._thread.start()

    @classmethod
    def found(cls) -> str | None:
        """A program of this system that plays sound; None if it has none that is known."""
        return next((name for name in _PLAYERS if shutil.which(name)), None)

    def play(self, sound: Sound) -> None:
        """Takes the next piece."""
        self._waiting.put(sound)

    def finish(self) -> str:
        """Waits until all is heard; returns what went wrong, "" if nothing did."""
        self._waiting.put(None)
        while self._thread.is_alive():
            self._thread.join(0.1)  # an interrupt comes through between
        return self._problem

    def stop(self) -> None:
        """Silence, at once."""
        self._has_stopped.set()
        self._waiting.put(None)
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        try:
            with tempfile.TemporaryFile() as messages:
                self._play_all(messages)
        except OSError as error:
            self._problem = str(error)

    def _play_all(self, messages: IO[bytes]) -> None:
        first = self._waiting.get()
        if first is None or self._has_stopped.is_set():
            return
        if self.program == _FILES:
            self._play_file(first)
            return
        command = [self.program, *_PLAYERS[self.program](first.sample_rate)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages, start_new_session=True
        ) as process:
            self._process = process
            with suppress(BrokenPipeError):  # its status says so
                self._feed(process, first)
        self._judge(process.returncode, messages)

    def _feed(self, process: subprocess.Popen[bytes], sound: Sound | None) -> None:
        assert process.stdin is not None  # a pipe
        with process.stdin as pipe:
            if self.program == _WAV and sound is not None:
                with open_audio_pipe(pipe, sound.sample_rate, is_live=True) as writer:
                    while sound is not None and not self._has_stopped.is_set():
                        writer.write(sound.waveform)
                        sound = self._waiting.get()
                return
            while sound is not None and not self._has_stopped.is_set():
                pipe.write((np.clip(sound.waveform, -1, 1) * 32767).astype("<i2").tobytes())
                pipe.flush()
                sound = self._waiting.get()

    def _play_file(self, sound: Sound | None) -> None:
        pieces = []
        while sound is not None:
            pieces.append(sound)
            sound = self._waiting.get()
        if self._has_stopped.is_set():
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answer.wav"
            save_audio(path, np.concatenate([one.waveform for one in pieces]), pieces[0].sample_rate)
            with subprocess.Popen([self.program, str(path)], stderr=subprocess.DEVNULL) as self._process:
                pass
            self._judge(self._process.returncode, None)

    def _judge(self, status: int, messages: IO[bytes] | None) -> None:
        if self._has_stopped.is_set():
            return
        told = b""
        if messages is not None:
            messages.seek(0)
            told = messages.read()
        if status != 0 or _UNHEARD in told:
            known = next((line for line in told.splitlines() if _UNHEARD in line), told)
            self._problem = _last_line(known) or f"it ended with status {status}"


def record(seconds: float | None, wait: Callable[[], object]) -> Recording:
    """Records from the microphone.

    Args:
        seconds: how long; None: until ``wait`` returns.
        wait: waits for the user.

    Raises:
        AnswerError: there is no program for it, or it failed.
        ValueError: the length is none.
    """
    if seconds is not None and not 0 < seconds <= _MAX_SECONDS:
        raise ValueError(f"/record {seconds:g}: use seconds above 0, up to {_MAX_SECONDS:g}")
    program = next((name for name in _RECORDERS if shutil.which(name)), None)
    if program is None:
        advice = "brew install sox" if _IS_MAC else "apt install alsa-utils (arecord), sox (rec) or ffmpeg"
        raise AnswerError(f"nothing here records: {advice}; or give a file: /audio FILE")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.wav"
        # A session of its own: Ctrl-C is for this program, which then ends that one as it wants to be ended.
        process = subprocess.Popen(
            [program, *_RECORDERS[program](str(path), seconds)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                if seconds is None:
                    wait()
                else:
                    process.wait()
            except KeyboardInterrupt:
                pass  # so far is what was wanted
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate()
        if not path.exists() or path.stat().st_size <= 44:
            raise AnswerError(f"{program} could not record: {_last_line(messages) or 'it wrote nothing'}")
        return Recording("recording.wav", path.read_bytes(), is_file=False)


def _last_line(messages: bytes) -> str:
    """Where programs say what went wrong in the end."""
    lines = [line.strip() for line in messages.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
