"""``-``: what comes through stdin, and sound that goes to stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

from audiollm.data.files.replacing import refuse_existing

PIPE = "-"


def read_stdin(wanted: str, example: str) -> bytes:
    """All that comes through stdin.

    Args:
        wanted: what it is, for messages.
        example: a command line that pipes it in.

    Raises:
        ValueError: stdin is a terminal, or nothing comes.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(f"{PIPE} reads {wanted} from stdin, which is a terminal: pipe one in, such as with {example}")
    contents: bytes = sys.stdin.buffer.read()
    if not contents:
        raise ValueError(
            f"{PIPE} reads {wanted} from stdin, where nothing came: see whether the program before it failed"
        )
    return contents


def read_text(given: str) -> str:
    """The text of a command line, or the one that comes through stdin where ``-`` is given.

    Raises:
        ValueError: as `read_stdin`, or it is no UTF-8.
    """
    if given != PIPE:
        return given
    contents = read_stdin("a text", 'echo "Good morning." | audiollm speak - -o out.wav')
    try:
        return contents.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{PIPE}: the text from stdin is no UTF-8 (byte {error.start})") from error


def read_recording(given: str) -> str | bytes:
    """A recording as it was named, or the bytes of the one that comes through stdin where ``-`` is given."""
    if given != PIPE:
        return given
    return read_stdin("a recording", "cat meeting.mp3 | audiollm transcribe -")


def refuse_two_of_stdin(**given: str | None) -> None:
    """Raises ValueError where more than one thing is to come through stdin.

    Args:
        given: what was given for each argument.
    """
    from_stdin = [name.replace("_", "-") for name, value in given.items() if value == PIPE]
    if len(from_stdin) > 1:
        raise ValueError(f"{PIPE} is given twice, for {' and '.join(from_stdin)}: one of them comes through stdin")


@contextlib.contextmanager
def stdout_for_sound(output: str) -> Iterator[IO[bytes] | None]:
    """stdout as the place of sound where ``-`` is given, so that all else that is printed goes to stderr; else None.

    Raises:
        ValueError: it is a terminal.
    """
    if output != PIPE:
        yield None
        return
    if sys.stdout is None or sys.stdout.isatty():
        raise ValueError(
            f"-o {PIPE} writes sound to stdout, which is a terminal: pipe it on, such as with | ffplay -, or name a "
            "file"
        )
    pipe = sys.stdout.buffer
    with contextlib.redirect_stdout(sys.stderr):
        yield pipe
    pipe.flush()


def check_sound_file(output: str, overwrite: bool) -> None:
    """Refuses, before a model is loaded, a file that cannot be written under this name, or may not be replaced.

    Raises:
        ValueError: it is of no known format, or exists.
    """
    from audiollm.data.audio.writing import check_output_path

    check_output_path(output)
    refuse_existing(output, overwrite)


@contextlib.contextmanager
def open_sound(pipe: IO[bytes] | None, output: str, sample_rate: int, *, is_live: bool) -> Iterator[Any]:
    """Opens what takes the sound of an output: the pipe, if there is one, or else the file."""
    from audiollm.data.audio.writing import open_audio_output, open_audio_pipe

    opened = (
        open_audio_output(output, sample_rate) if pipe is None else open_audio_pipe(pipe, sample_rate, is_live=is_live)
    )
    with opened as writer:
        yield writer
