"""Records of other projects written as ours: each one is checked, and comes out or is rejected with its place.

What a record says is read by ``foreign/``; here it becomes a conversation or a clip record. Sound that lies inside
records goes into files beside the output, named by the hash of their bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import AudioPart, Message
from audiollm.data.files.atomic import atomic_entries, atomic_write
from audiollm.data.files.json_lines import json_line, write_json_lines
from audiollm.data.foreign.base import Entry, ForeignChat, ForeignClip, Format, Reading, ShapeError, checked_text
from audiollm.data.foreign.detection import find_format
from audiollm.data.foreign.files import as_object
from audiollm.data.manifest import RecordError
from audiollm.data.prompts import TASK_ANSWERS
from audiollm.data.records import make_paths_relative
from audiollm.data.unread_keys import warn_of_unread_keys

_HASH_DIGITS = 32


@dataclass
class ConversionReport:
    """What a file of another project became.

    Attributes:
        output: the file of our records.
        format: what the input was read as.
        conversations: records written that can be trained on.
        clips: records written of recordings, without a question.
        rejected: records of the input that came to nothing.
        rejected_list: the file that says why.
        audio_files: recordings that lay inside records, each written once.
        audio_folder: where those files are.
    """

    output: str
    format: str
    conversations: int = 0
    clips: int = 0
    rejected: int = 0
    rejected_list: str | None = None
    audio_files: int = 0
    audio_folder: str | None = None

    @property
    def num_records(self) -> int:
        """Records written."""
        return self.conversations + self.clips

    def __str__(self) -> str:
        kinds = [("conversations", self.conversations), ("clips", self.clips)]
        made = ", ".join(f"{count} {name}" for name, count in kinds if count)
        lines = [f"read as {self.format}: {self.num_records} records ({made}), {self.rejected} rejected"]
        if self.rejected_list is not None:
            lines.append(f"{self.rejected_list} says why")
        if self.audio_folder is not None:
            lines.append(f"{self.audio_files} recordings out of records are in {self.audio_folder}")
        return "\n".join(lines)


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
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists already; delete it, choose another output, or set --overwrite")
    if target.suffix != ".jsonl":
        raise ValueError(f"{target}: records are written as JSON lines; name the output with .jsonl")
    if os.path.exists(path) and target.exists() and os.path.samefile(path, target):
        raise ValueError(f"{target} is the input; choose another output")
    found = find_format(path, format)
    if not os.path.exists(path):
        raise RecordError(path, "no such file or folder")
    settings = {"instruction": instruction, "text_key": text_key}
    useless = [name for name, value in settings.items() if value is not None and found.is_chat]
    if useless:
        raise ValueError(f"{useless[0]}: records of {found.title} bring their own questions and answers; leave it out")
    if task is not None and not found.is_chat and instruction is None:
        raise ValueError("a task about clips needs an instruction, what is asked about each of them")
    folder = None if base_dir is None else os.path.abspath(base_dir)
    converter = _Converter(found, task, instruction, text_key, check_audio)
    entries = found.entries(path, folder)
    return _write(path, entries, target, converter, skip_bad)


def _write(
    path: str, entries: Iterator[Entry], target: Path, converter: _Converter, skip_bad: bool
) -> ConversionReport:
    report = ConversionReport(str(target), converter.format.title)
    rejections: list[dict[str, Any]] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    # The audio is put in its place first: records never point at files that are not there yet.
    with atomic_write(target) as file, _AudioFolder(target.with_name(f"{target.stem}_audio")) as audio_folder:
        for index, entry in enumerate(entries):
            try:
                lines = [json_line(record, allow_nan=False) for record in converter.records(entry, audio_folder)]
            except (RecordError, AudioError) as error:
                if not skip_bad:
                    raise
                source, reason = error.args
                rejections.append({"index": index, "source": source, "reason": reason})
                continue
            except (TypeError, ValueError, RecursionError) as error:
                if not skip_bad:
                    raise RecordError(entry.where, f"cannot be written: {error}") from error
                rejections.append({"index": index, "source": entry.where, "reason": f"cannot be written: {error}"})
                continue
            file.writelines(lines)
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


class _Converter:
    """Makes our records of foreign ones, and counts them."""

    def __init__(
        self, format: Format, task: str | None, instruction: str | None, text_key: str | None, check_audio: bool
    ) -> None:
        self.format = format
        self.conversations = self.clips = 0
        self.unread: Counter[str] = Counter()
        self._task, self._instruction, self._text_key = task, instruction, text_key
        self._check_audio = check_audio
        self._ids: set[int] = set()  # hashes: 8 bytes instead of a string per record

    def records(self, entry: Entry, audio_folder: _AudioFolder) -> list[dict[str, Any]]:
        """Our records of one of theirs; all of them or, if one is bad, none.

        Raises:
            RecordError, AudioError: it is bad.
        """
        if entry.error is not None:
            raise entry.error
        value = as_object(entry.value, entry.where)
        try:
            readings = self.format.readings(value, self._text_key)
            made = [self._record(reading, entry, audio_folder) for reading in readings]
        except ShapeError as error:
            raise RecordError(entry.where, str(error)) from error
        ids = [hash(record["id"]) for record, _ in made]
        for number, (record, _) in enumerate(made):
            if ids[number] in self._ids or ids[number] in ids[:number]:
                raise RecordError(entry.where, f"id: {record['id']!r} is taken by an earlier record; ids must differ")
        self._ids.update(ids)
        for reading, (_, is_conversation) in zip(readings, made, strict=True):
            self.unread.update(reading.unread)
            self.conversations += is_conversation
            self.clips += not is_conversation
        folder = audio_folder.path.absolute().parent
        for record, _ in made:
            make_paths_relative(record, folder)
        return [record for record, _ in made]

    def _record(self, reading: Reading, entry: Entry, audio_folder: _AudioFolder) -> tuple[dict[str, Any], bool]:
        """One of our records, and whether it is a conversation."""
        if isinstance(reading, ForeignChat):
            return self._conversation(reading.record, entry, audio_folder), True
        question = reading.question if reading.question is not None else self._instruction
        if question is not None:
            return self._conversation(self._asked(reading, question), entry, audio_folder), True
        record = _clip_record(reading) | {"id": reading.id or os.path.basename(entry.where)}
        part = clip_part({"audio": reading.audio, **_segment(reading)}, entry.where, entry.base_dir)
        path = self._path(part, entry, audio_folder)
        return {"id": record.pop("id"), "audio": path, **part.cut, **record}, False

    def _asked(self, clip: ForeignClip, question: Any) -> dict[str, Any]:
        """A clip as a conversation: the recording and what is asked, then the answer."""
        audio = {"type": "audio", "audio": clip.audio, **_segment(clip)}
        asked = {"type": "text", "text": checked_text(question, "question")}
        turns = [
            {"role": "user", "content": [audio, asked]},
            {"role": "assistant", "content": [{"type": "text", "text": self._answer(clip)}]},
        ]
        facts = {key: value for key, value in _clip_record(clip).items() if value is not None}
        return {**facts, "messages": turns}

    def _answer(self, clip: ForeignClip) -> str:
        if clip.question is not None:
            return checked_text(clip.answer, "answer")
        name = "text" if self._text_key is not None else TASK_ANSWERS.get(self._task or "", "text")
        value = vars(clip)[name] if name in vars(clip) else clip.more.get(name)
        if value is None and clip.translation is not None and name == "text":
            raise ShapeError("text", "is a translation; use --task translate, or name the key with --text-key")
        return checked_text(value, self._text_key or name)

    def _conversation(self, record: dict[str, Any], entry: Entry, audio_folder: _AudioFolder) -> dict[str, Any]:
        if self._task is not None:
            record = {**record, "task": self._task}
        conversation = parse_conversation(record, where=entry.where, base_dir=entry.base_dir, for_training=True)
        made = conversation.to_dict()
        for message, written in zip(conversation.messages, made["messages"], strict=True):
            self._put_audio(message, written["content"], entry, audio_folder)
        return made

    def _put_audio(
        self, message: Message, written: list[dict[str, Any]], entry: Entry, audio_folder: _AudioFolder
    ) -> None:
        for index, part in enumerate(message.content):
            if isinstance(part, AudioPart) and part.codes is None:
                written[index] = {"type": "audio", "path": self._path(part, entry, audio_folder), **part.cut}

    def _path(self, part: AudioPart, entry: Entry, audio_folder: _AudioFolder) -> str:
        """The file that holds a recording.

        Raises:
            AudioError: it is not there, or cannot be used as far as it is looked at.
        """
        if part.array is not None:
            raise AudioError(part.where, "holds samples; give a file")
        if part.bytes is not None:
            return str(audio_folder.put(part))
        if part.path is None or not os.path.isfile(part.path):
            start = f"; relative paths start from {entry.base_dir} (--base-dir)" if entry.base_dir else ""
            raise AudioError(f"{part.where}: {part.path}", f"no such file{start}")
        if self._check_audio:
            part.probe()
        return part.path


class _AudioFolder(contextlib.AbstractContextManager["_AudioFolder"]):
    """A folder for sound that lies in records; it is made with the first file, and filled when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._staging = path

    @property
    def num_files(self) -> int:
        return len(self._names)

    def put(self, part: AudioPart) -> Path:
        """Writes the bytes of a recording, once; returns the path that the file will have, absolute.

        Raises:
            AudioError: the bytes are no sound.
        """
        kind = part.probe().format.split()[0].lower()
        assert part.bytes is not None  # the caller looked
        digest = hashlib.sha256(part.bytes).hexdigest()[:_HASH_DIGITS]
        name = f"{digest}.{kind if kind.isalnum() else 'audio'}"
        if name not in self._names:
            if not self._names:
                self._staging = self._stack.enter_context(atomic_entries(self.path))
            (self._staging / name).write_bytes(part.bytes)
            self._names.add(name)
        return self.path.absolute() / name

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)


def _segment(clip: ForeignClip) -> dict[str, Any]:
    return {"offset": clip.offset, "duration": clip.duration}


def _clip_record(clip: ForeignClip) -> dict[str, Any]:
    """What is said of a clip, without the recording."""
    names = ("id", "text", "translation", "language", "speaker")
    facts = {name: vars(clip)[name] for name in names if vars(clip)[name] is not None}
    return {**clip.more, **facts}
