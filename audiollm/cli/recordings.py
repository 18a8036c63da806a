"""What the hearing commands hear: files, folders of them, and what comes through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STDIN = "-"


@dataclass(frozen=True)
class Recording:
    """A recording that was named on the command line, or lies in a folder that was.

    Attributes:
        name: as it was named, or as the folder was, with the file's place in it.
        source: its path, or the bytes of a file.
        place: where its answer goes in a folder of answers: relative, without an ending.
    """

    name: str
    source: str | bytes
    place: str


def find_recordings(inputs: Sequence[str]) -> list[Recording]:
    """Lists the recordings of a command line; a folder stands for all that lie in it, in the order of their names.

    Args:
        inputs: paths of files and folders; ``-`` is one recording that comes through stdin.

    Raises:
        ValueError: a folder holds no recording, ``-`` comes twice, or no recording comes through stdin.
    """
    from audiollm.data.tokenizing.source import open_audio_folder

    if list(inputs).count(STDIN) > 1:
        raise ValueError(f"{STDIN} is given twice: one recording comes through stdin")
    found: list[Recording] = []
    for name in inputs:
        if name == STDIN:
            found.append(Recording(STDIN, _read_stdin(), "stdin"))
        elif os.path.isdir(name):  # Path("") is a folder, and Path.is_dir fails for long names
            for record in open_audio_folder(name):
                found.append(Recording(record["audio"], record["audio"], str(Path(record["id"]).with_suffix(""))))
        else:
            found.append(Recording(name, name, Path(name).stem))
    return found


def check_recordings(recordings: Sequence[Recording]) -> None:
    """Opens each recording once, so that one that cannot be read is told before a model is loaded.

    Raises:
        AudioError: names the first one that cannot be read.
    """
    from audiollm.data.audio.opening import open_stream

    for recording in recordings:
        with open_stream(recording.source, recording.name):
            pass


def _read_stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(
            "- reads a recording from stdin, which is a terminal: pipe one in, such as with cat meeting.mp3 | audiollm "
            "transcribe -"
        )
    contents = sys.stdin.buffer.read()
    if not contents:
        raise ValueError("- reads a recording from stdin, where nothing came: see whether the program before it failed")
    return contents
