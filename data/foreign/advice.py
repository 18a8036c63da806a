"""What to do with a source that holds no records of ours: the command that makes records of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiollm.data.audio.sources import AUDIO_SUFFIXES
from audiollm.data.manifest import YAML_SUFFIXES

from .files import is_gzip, table_delimiter
from .formats import FORMATS

ENTRIES_LOOKED_AT = 10_000  # of a folder, for recordings


def conversion_command(source: str, is_chat: bool) -> str:
    """The command line that makes conversations of a source.

    Args:
        source: a file or folder.
        is_chat: it holds conversations, so that nothing needs to be asked about recordings.
    """
    task = "" if is_chat else " --task transcribe"
    return f"audiollm convert-data {shlex.quote(source)} records.jsonl{task}"


def with_advice(reason: str, source: Any) -> str:
    """What is wrong with a source, and the command that makes records of what it is, if that is known.

    Args:
        reason: why it cannot be read as records.
        source: a path, or anything else, of which nothing is known.

    Raises:
        RecordError: as `conversion_advice`.
    """
    advice = conversion_advice(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else ""
    return f"{reason}; {advice}" if advice else reason


def conversion_advice(source: str) -> str:
    """What a file or folder is that holds no records of ours, and how it becomes some; "" where that is not known.

    Raises:
        RecordError: it looks like a format of another project, and is damaged.
    """
    if os.path.isdir(source):
        found = next((one for one in FORMATS.values() if one.opens(source)), None)
        if found is not None:
            return f"it is {found.title}: make records of it with `{conversion_command(source, found.is_chat)}`"
        return recordings_advice(source)
    if not os.path.isfile(source):
        return ""
    if source.lower().endswith(AUDIO_SUFFIXES):
        return f"it is a recording: give records; {_with_metadata(str(Path(source).parent))}"
    if source.endswith(YAML_SUFFIXES):  # settings, in which commas are no columns
        return ""
    if not is_gzip(source) and table_delimiter(source) is not None:
        return f"it is a table: make records of it with `{conversion_command(source, is_chat=False)}`"
    return ""


def recordings_advice(folder: str) -> str:
    """What to do with a folder in which recordings lie without a word about them; "" if there are none."""
    if not any(name.lower().endswith(AUDIO_SUFFIXES) for name in _names_in(folder)):
        return ""
    return f"it holds recordings, and no word of what is said in them: {_with_metadata(folder)}"


def _with_metadata(folder: str) -> str:
    return (
        f"write {os.path.join(folder, 'metadata.csv')}, a table with the columns file_name,text and a line for each "
        f"recording, then run `{conversion_command(folder, is_chat=False)}`"
    )


def _names_in(folder: str) -> Iterator[str]:
    """Names of files in a folder and those below it, of which there may be millions."""
    num_seen = 0
    for _, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            num_seen += 1
            if num_seen > ENTRIES_LOOKED_AT:
                return
            yield name
