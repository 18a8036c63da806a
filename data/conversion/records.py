"""Our records of what the readers of other projects' records give."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import AudioPart, Message
from audiollm.data.files.json_lines import json_line
from audiollm.data.files.text import is_whole
from audiollm.data.foreign.base import Entry, ForeignChat, ForeignClip, Format, Reading, ShapeError, checked_text
from audiollm.data.foreign.files import as_object
from audiollm.data.manifest import RecordError
from audiollm.data.prompts import TASK_ANSWERS
from audiollm.data.records import make_paths_relative

from .audio_folder import AudioFolder


class Converter:
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

    def lines(self, entry: Entry, audio_folder: AudioFolder) -> list[str]:
        """Our records of one of theirs, as lines of JSON; all of them or, if one is bad, none.

        Raises:
            RecordError, AudioError: it is bad. Nothing of it is counted or kept then.
        """
        if entry.error is not None:
            raise entry.error
        value = as_object(entry.value, entry.where)
        with audio_folder.kept_if_well():
            try:
                readings = self.format.readings(value, self._text_key)
                made = [self._record(reading, entry, audio_folder) for reading in readings]
            except ShapeError as error:
                raise RecordError(entry.where, str(error)) from error
            lines = [_line(record, entry.where, audio_folder) for record, _ in made]
            ids = self._new_ids([record["id"] for record, _ in made], entry.where)
        self._ids.update(ids)
        for reading, (_, is_conversation) in zip(readings, made, strict=True):
            self.unread.update(reading.unread)
            self.conversations += is_conversation
            self.clips += not is_conversation
        return lines

    def _new_ids(self, ids: list[Any], where: str) -> set[int]:
        hashes: set[int] = set()
        for identifier in ids:
            if hash(identifier) in self._ids | hashes:
                raise RecordError(where, f"id: {identifier!r} is taken by an earlier record; ids must differ")
            hashes.add(hash(identifier))
        return hashes

    def _record(self, reading: Reading, entry: Entry, audio_folder: AudioFolder) -> tuple[dict[str, Any], bool]:
        """One of our records, and whether it is a conversation."""
        if isinstance(reading, ForeignChat):
            return self._conversation(reading.record, entry, audio_folder), True
        question = reading.question if reading.question is not None else self._instruction
        if question is not None:
            return self._conversation(self._asked(reading, question), entry, audio_folder), True
        for name in ("text", "translation"):
            _check_words(vars(reading)[name], name)
        record = clip_facts(reading) | {"id": reading.id or os.path.basename(entry.where)}
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
        facts = {key: value for key, value in clip_facts(clip).items() if value is not None}
        return {**facts, "messages": turns}

    def _answer(self, clip: ForeignClip) -> str:
        if clip.question is not None:
            return checked_text(clip.answer, "answer")
        name = "text" if self._text_key is not None else TASK_ANSWERS.get(self._task or "", "text")
        value = vars(clip)[name] if name in vars(clip) else clip.more.get(name)
        if value is None and clip.translation is not None and name == "text":
            raise ShapeError("text", "is a translation; use --task translate, or name the key with --text-key")
        if value is None:
            reason = (
                "missing or empty; fill it in, or go on without such records (--skip-bad), or name its key (--text-key)"
            )
            raise ShapeError(self._text_key or name, reason)
        return checked_text(value, self._text_key or name)

    def _conversation(self, record: dict[str, Any], entry: Entry, audio_folder: AudioFolder) -> dict[str, Any]:
        if self._task is not None:
            record = {**record, "task": self._task}
        conversation = parse_conversation(record, where=entry.where, base_dir=entry.base_dir, for_training=True)
        made = conversation.to_dict()
        for message, written in zip(conversation.messages, made["messages"], strict=True):
            self._put_audio(message, written["content"], entry, audio_folder)
        return made

    def _put_audio(
        self, message: Message, written: list[dict[str, Any]], entry: Entry, audio_folder: AudioFolder
    ) -> None:
        for index, part in enumerate(message.content):
            if isinstance(part, AudioPart) and part.codes is None:
                written[index] = {"type": "audio", "path": self._path(part, entry, audio_folder), **part.cut}

    def _path(self, part: AudioPart, entry: Entry, audio_folder: AudioFolder) -> str:
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


def _line(record: dict[str, Any], where: str, audio_folder: AudioFolder) -> str:
    make_paths_relative(record, audio_folder.path.absolute().parent)
    try:
        return json_line(record, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:  # a date, NaN, brackets without end
        raise RecordError(where, f"cannot be written: {error}") from error


def _check_words(words: Any, name: str) -> None:
    if words is not None and not is_whole(checked_text(words, name, may_be_empty=True)):
        raise ShapeError(name, "holds half a character (one of a surrogate pair), which no tokenizer takes")


def _segment(clip: ForeignClip) -> dict[str, Any]:
    return {"offset": clip.offset, "duration": clip.duration}


def clip_facts(clip: ForeignClip) -> dict[str, Any]:
    """What is said of a clip, without the recording."""
    names = ("id", "text", "translation", "language", "speaker")
    facts = {name: vars(clip)[name] for name in names if vars(clip)[name] is not None}
    return {**clip.more, **facts}
