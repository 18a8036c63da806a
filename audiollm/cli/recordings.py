"""What the hearing commands hear: files, folders of them, and what comes through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import shown_name
from .pipes import PIPE, read_recording


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

    if list(inputs).count(PIPE) > 1:
        raise ValueError(f"{PIPE} is given twice: one recording comes through stdin")
    found: list[Recording] = []
    for name in inputs:
        if name == PIPE:
            found.append(Recording(PIPE, read_recording(PIPE), "stdin"))
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


class BadRecordingError(ValueError):
    """A recording that nothing can be made of; there may be others of which something can."""


def made_of(recording: Recording, make: Callable[[str | bytes], Any]) -> Any:
    """What is made of a recording.

    Args:
        recording: which.
        make: makes it of its source.

    Raises:
        BadRecordingError: names the recording.
    """
    from audiollm.data.audio.sources import AudioError, source_name

    try:
        return make(recording.source)
    except AudioError as error:
        is_about_it = error.source == source_name(recording.source)
        raise BadRecordingError(f"{recording.name}: {error.reason if is_about_it else error}") from error
    except ValueError as error:  # too long, or an audio tokenizer's word for sound that it does not take
        raise BadRecordingError(f"{recording.name}: {error}") from error


def skipped_line(recording: Recording, reason: str) -> str:
    """The line that tells that a recording was left out; its name stands in it once."""
    told = shown_name(reason.removeprefix(f"{recording.name}: "))
    return f"{shown_name(recording.name)}: skipped: {told}"


def with_progress(recordings: Sequence[Recording], doing: str) -> Iterable[tuple[int, Recording]]:
    """Recordings and their numbers, with a bar on a terminal if there are several.

    Args:
        recordings: what is gone through.
        doing: what is done with them.
    """
    from rich.console import Console
    from rich.progress import track

    is_hidden = len(recordings) == 1 or not sys.stderr.isatty()
    console = Console(stderr=True)
    return track(
        enumerate(recordings), doing, total=len(recordings), disable=is_hidden, transient=True, console=console
    )
