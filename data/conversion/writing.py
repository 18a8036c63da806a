"""Writes records of other projects as ours: each one is checked, and comes out or is rejected with its place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.files.replacing import refuse_existing
from audiollm.data.foreign.base import Entry, Format
from audiollm.data.foreign.detection import find_format
from audiollm.data.manifest import RecordError
from audiollm.data.unread_keys import warn_of_unread_keys

from .audio_folder import AudioFolder
from .records import Converter
from .report import ConversionReport


def convert_data(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str | None = None,
    task: str | None = None,
    instruction: str | None = None,
    text_key: str | None = None,
    base_dir: str | os.PathLike[str] | None = None,
    check_audio: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> ConversionReport:
    """Writes the records of another project as ours; the output appears whole or not at all.

    Chats become conversations. Clips become clip records, or, with an instruction, conversations of one question and
    one answer. Loss will be on every assistant turn, and on nothing else; records whose project trains on less are
    rejected. Keys that nothing reads are kept and listed in one warning.

    Args:
        source: a file or folder.
        output: the file to write (.jsonl).
        format: one of `FORMATS`; None: what the content says.
        task: written into every conversation; says which fact of a clip is the answer, see `TASK_ANSWERS`.
        instruction: what is asked about every clip that brings no question of its own.
        text_key: the key of a clip's record that holds its text.
        base_dir: folder that relative paths start from; by default the folder of the file they are written in.
        check_audio: open every recording; else it only has to be there.
        skip_bad: leave bad records out and list them in ``<output>.rejected.jsonl``, instead of stopping at the first.
        overwrite: replace an output that exists.

    Raises:
        RecordError: a bad record, named with file, line and reason; or a source that cannot be read.
        ValueError: the output exists, a setting has no meaning for the format, or all records are bad.
    """
    path, target = os.fspath(source), Path(output)
    _check_output(path, target, overwrite)
    found = find_format(path, format)
    if not os.path.exists(path):
        raise RecordError(path, "no such file or folder")
    _check_settings(found, {"instruction": instruction, "text_key": text_key}, task)
    entries = found.entries(path, None if base_dir is None else os.path.abspath(base_dir))
    return _write(path, entries, target, Converter(found, task, instruction, text_key, check_audio), skip_bad)


def _check_output(source: str, target: Path, overwrite: bool) -> None:
    refuse_existing(target, overwrite)
    if target.suffix != ".jsonl":
        raise ValueError(f"{target}: records are written as JSON lines; name the output with .jsonl")
    if target.exists() and os.path.exists(source) and target.samefile(source):
        raise ValueError(f"{target} is the input; choose another output")


def _check_settings(found: Format, of_clips: Mapping[str, str | None], task: str | None) -> None:
    """Refuses settings that would have no effect."""
    useless = [name for name, value in of_clips.items() if value is not None and found.is_chat]
    if useless:
        raise ValueError(f"{useless[0]}: records of {found.title} bring their own questions and answers; leave it out")
    if task is not None and not found.is_chat and of_clips["instruction"] is None:
        raise ValueError("a task about clips needs an instruction, what is asked about each of them")


def _write(path: str, entries: Iterator[Entry], target: Path, converter: Converter, skip_bad: bool) -> ConversionReport:
    report = ConversionReport(str(target), converter.format.title)
    rejections: list[dict[str, Any]] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    # The audio is put in its place first: records never point at files that are not there yet.
    with atomic_write(target) as file, AudioFolder(target.with_name(f"{target.stem}_audio")) as audio_folder:
        for index, entry in enumerate(entries):
            try:
                file.writelines(converter.lines(entry, audio_folder))
            except (RecordError, AudioError) as error:
                if not skip_bad:
                    raise
                place, reason = error.args
                rejections.append({"index": index, "source": place, "reason": reason})
        warn_of_unread_keys(path, converter.unread)
        report.conversations, report.clips = converter.conversations, converter.clips
        report.audio_files, report.rejected = audio_folder.num_files, len(rejections)
        report.audio_folder = str(audio_folder.path) if audio_folder.num_files else None
        rejected_list = target.with_name(target.name + ".rejected.jsonl")
        rejected_list.unlink(missing_ok=True)  # of an earlier run
        if rejections:
            write_json_lines(rejected_list, rejections)
            report.rejected_list = str(rejected_list)
        if not report.num_records:
            reason = f"all {len(rejections)} records are bad; {rejected_list} says why" if rejections else "no records"
            raise ValueError(f"{path}, read as {report.format}: {reason}")
    return report
