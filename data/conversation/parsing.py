"""Records to typed conversations; everything wrong with a record is found in one pass and named by its field."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from audiollm.data.audio.sources import AUDIO_SUFFIXES
from audiollm.data.files.text import HALF_A_CHARACTER, is_whole
from audiollm.data.foreign.advice import conversion_command
from audiollm.data.foreign.base import LABEL_OF_PREFERENCE, ShapeError
from audiollm.data.foreign.detection import formats_of
from audiollm.data.foreign.formats import FORMATS
from audiollm.data.foreign.recordings import inline_recordings
from audiollm.data.foreign.sharegpt import TURN_MARK, is_sharegpt, sharegpt_chat

from .audio_parts import AudioPartParser
from .encoded_audio import plain_audio_part
from .problems import ConversationError, Problem, ProblemLog, kind_of
from .types import ROLES, AudioPart, Conversation, Message, TextPart

RECORD_KEYS = ("id", "messages", "task", "tools", "audios")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
TEXT_PART_KEYS = ("type", "text")
FOREIGN_AUDIO_PARTS = ("input_audio", "audio_url")  # of the OpenAI API, and of servers that speak it
# Where other formats keep recordings, and users' records too.
RECORDING_KEYS = ("audio", "audio_path", "audio_filepath", "audio_file", "wav", "wav_path", "sound", "speech", "path")
AUDIO_PLACEHOLDER = "<audio>"  # marks the place of the next entry of "audios" in a record's text


def parse_conversation(
    record: Mapping[str, Any],
    *,
    where: str = "",
    base_dir: str | os.PathLike[str] | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
) -> Conversation:
    """Checks a record and gives it types.

    Keys whose value is ``None`` count as absent (parquet fills them in). Unknown keys of the record itself are kept as
    metadata; in messages and parts they are refused, since there they are typing errors.

    Args:
        record: the record, as read from JSON or from a data set.
        where: file and line, for messages.
        base_dir: folder that relative audio paths start from; ``None`` leaves them as they are.
        codebook_size: codes must be below this; ``None``: only not negative.
        for_training: require an assistant turn, without which there is nothing to learn.

    Raises:
        ConversationError: names place and field of the first problem, and counts the others.
    """
    conversation, problems = check_conversation(
        record, where=where, base_dir=base_dir, codebook_size=codebook_size, for_training=for_training
    )
    if conversation is None:
        more = f" (and {len(problems) - 1} more in this record)" if len(problems) > 1 else ""
        first = problems[0]
        raise ConversationError(first.where, f"{first.field}: {first.reason}{more}" if first.field else first.reason)
    return conversation


def is_conversation(record: Any) -> bool:
    """Whether a record is a conversation, in our words or in those of ShareGPT, or means to be one."""
    return isinstance(record, Mapping) and ("messages" in record or is_sharegpt(record))


def check_conversation(
    record: Any,
    *,
    where: str = "",
    base_dir: str | os.PathLike[str] | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
) -> tuple[Conversation | None, list[Problem]]:
    """Does what `parse_conversation` does, but returns all problems instead of raising the first.

    Returns:
        ``(conversation, [])``, or ``(None, problems)`` with at least one problem.
    """
    log = ProblemLog(where)
    made_by = record.get("audio_tokenizer") if isinstance(record, Mapping) else None
    audio_parser = AudioPartParser(log, base_dir, codebook_size, made_by)
    conversation = _RecordParser(log, audio_parser, for_training).conversation(record)
    return (None, log.problems) if log.problems else (conversation, [])


class _RecordParser:
    """Reads one record and notes what is wrong with it; what it returns counts only if nothing is."""

    def __init__(self, log: ProblemLog, audio_parser: AudioPartParser, for_training: bool) -> None:
        self._log = log
        self._audio_parser = audio_parser
        self._for_training = for_training

    def conversation(self, record: Any) -> Conversation | None:
        if not isinstance(record, Mapping):
            self._log.note("", f"a record is an object with the key messages, not {kind_of(record)}")
            return None
        present = {key: value for key, value in record.items() if value is not None}
        if "messages" not in present and is_sharegpt(present):
            present = self._of_sharegpt(present)
        if "messages" not in present:
            if not self._log.problems:
                self._log.note(
                    "messages",
                    f"missing{_hint('messages', present, self._log.where)}; the record has {_listed(present)}",
                )
            return None
        for at, text in _texts(present, ""):
            if not is_whole(text):
                self._log.note(at, HALF_A_CHARACTER)
        if self._log.problems:
            return None
        identifier = present.get("id", os.path.basename(self._log.where))
        if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
            self._log.note("id", f"must be a string or a whole number, not {kind_of(identifier)}")
        task = present.get("task")
        if task is not None and not isinstance(task, str):
            self._log.note("task", f"must be a string, not {kind_of(task)}")
        if isinstance(present.get("label"), bool):
            self._log.note("label", LABEL_OF_PREFERENCE)
        if "audios" not in present:
            self._note_unheard(present)
        messages = self._messages(present["messages"], present.get("audios"))
        tools = self._dicts(present.get("tools"), "tools")
        metadata = {key: value for key, value in present.items() if key not in RECORD_KEYS}
        return Conversation(str(identifier), messages, task, tools, metadata, self._log.where)

    def _of_sharegpt(self, present: dict[str, Any]) -> dict[str, Any]:
        try:
            chat = sharegpt_chat(present)
        except ShapeError as error:
            self._log.note(error.field, error.reason)
            return {}
        for key in chat.unread:
            if key.startswith(TURN_MARK):
                self._log.note(key, "unknown key of a turn")
        return chat.record

    def _note_unheard(self, present: Mapping[str, Any]) -> None:
        """Notes places of recordings in the text, and recordings under keys that nothing reads, if nothing is heard."""
        marks = sum(text.count(AUDIO_PLACEHOLDER) for _, text in _texts(present["messages"], ""))
        num_heard = sum(map(_num_audio_parts, _listed_mappings(present["messages"])))
        keys = [key for key, value in present.items() if key not in RECORD_KEYS and _is_recording(key, value)]
        if marks > num_heard and keys:
            self._log.note(keys[0], f"is read by nothing; give a list as audios, one for each {AUDIO_PLACEHOLDER}")
        elif marks > num_heard and self._for_training:  # else somebody may be asking about HTML
            reason = f"say {AUDIO_PLACEHOLDER} {marks} times, but the record has {num_heard} recordings"
            self._log.note("messages", f"{reason}; give a list as audios, one for each")
        elif not num_heard and (named := inline_recordings(text for _, text in _texts(present["messages"], ""))):
            self._log.note("messages", f"name {named[0][:80]} in a text; convert the file with audiollm convert-data")
        elif keys and not num_heard:
            self._log.note(keys[0], "looks like a recording, which nothing would hear; make it an audio part")

    def _messages(self, value: Any, audios: Any) -> list[Message]:
        if not isinstance(value, (list, tuple)):
            self._log.note("messages", f"must be a list of messages, not {kind_of(value)}")
            return []
        if not value:
            self._log.note("messages", "is empty; give at least one message")
            return []
        placeholders = self._placeholders(audios)
        messages = [self._message(item, f"messages[{i}]", placeholders) for i, item in enumerate(value)]
        if placeholders:
            self._log.note("audios", f"{len(placeholders)} of them have no {AUDIO_PLACEHOLDER} in the text to stand in")
        if self._for_training and not any(isinstance(m, Mapping) and m.get("role") == "assistant" for m in value):
            self._log.note("messages", "have no assistant turn, so there is nothing to learn")
        return [message for message in messages if message is not None]

    def _placeholders(self, audios: Any) -> list[AudioPart] | None:
        """Reads "audios", whose entries take the places of ``<audio>`` in the text; ``None`` if there are none."""
        if audios is None:
            return None
        if not isinstance(audios, (list, tuple)):
            self._log.note("audios", f"must be a list, not {kind_of(audios)}")
            return None
        parts = [
            self._audio_parser.parse({"type": "audio", "audio": item}, f"audios[{i}]") for i, item in enumerate(audios)
        ]
        return [part for part in parts if part is not None]

    def _message(self, value: Any, at: str, placeholders: list[AudioPart] | None) -> Message | None:
        if not isinstance(value, Mapping):
            self._log.note(at, f"must be an object with role and content, not {kind_of(value)}")
            return None
        message = {key: item for key, item in value.items() if item is not None}
        self._log.note_unknown_keys(message, MESSAGE_KEYS, at)
        role = message.get("role")
        if role is None:
            self._log.note(f"{at}.role", f"missing; use one of {', '.join(ROLES)}")
        elif role not in ROLES:
            self._log.note(f"{at}.role", f"{role!r} is not one of {', '.join(ROLES)}")
        for key in ("name", "tool_call_id"):
            if not isinstance(message.get(key, ""), str):
                self._log.note(f"{at}.{key}", f"must be a string, not {kind_of(message[key])}")
        tool_calls = self._dicts(message.get("tool_calls"), f"{at}.tool_calls")
        content = self._content(message, at, placeholders, may_be_empty=role in ("system", "tool") or bool(tool_calls))
        return Message(str(role), content, message.get("name"), tool_calls, message.get("tool_call_id"))

    def _content(
        self, message: Mapping[str, Any], at: str, placeholders: list[AudioPart] | None, may_be_empty: bool
    ) -> list[TextPart | AudioPart]:
        content = message.get("content")
        if content is None and may_be_empty:
            return []
        if content is None:
            self._log.note(f"{at}.content", f"missing{_hint('content', message, self._log.where)}")
            return []
        if isinstance(content, str):
            parts = self._text_with_placeholders(content, f"{at}.content", placeholders)
        elif isinstance(content, (list, tuple)):
            read = [self._part(item, f"{at}.content[{i}]", placeholders) for i, item in enumerate(content)]
            parts = [part for some in read for part in some]
            if len(content) and not all(read):
                return parts  # a problem has been noted
        else:
            self._log.note(f"{at}.content", f"must be a string or a list of parts, not {kind_of(content)}")
            return []
        is_empty = all(isinstance(part, TextPart) and not part.text for part in parts)
        if is_empty and not may_be_empty:
            self._log.note(f"{at}.content", "is empty; give text or audio")
        return parts

    def _part(self, value: Any, at: str, placeholders: list[AudioPart] | None) -> list[TextPart | AudioPart]:
        if not isinstance(value, Mapping):
            self._log.note(at, f'must be an object such as {{"type": "text", "text": …}}, not {kind_of(value)}')
            return []
        part = {key: item for key, item in value.items() if item is not None}
        kind = part.get("type")
        if kind == "text":
            self._log.note_unknown_keys(part, TEXT_PART_KEYS, at)
            text = part.get("text")
            if isinstance(text, str):
                return self._text_with_placeholders(text, f"{at}.text", placeholders)
            self._log.note(f"{at}.text", "missing" if text is None else f"must be a string, not {kind_of(text)}")
            return []
        if kind == "audio":
            audio = self._audio_parser.parse(part, at)
            return [] if audio is None else [audio]
        if kind in FOREIGN_AUDIO_PARTS:
            return self._foreign_audio(part, at)
        fix = "missing" if kind is None else f"{kind!r} is not known"
        self._log.note(f"{at}.type", f'{fix}; use "text" or "audio"')
        return []

    def _foreign_audio(self, part: Mapping[str, Any], at: str) -> list[TextPart | AudioPart]:
        try:
            plain = plain_audio_part(part)
        except ValueError as error:
            field, _, reason = str(error).partition(": ")
            self._log.note(f"{at}.{field}", reason)
            return []
        audio = self._audio_parser.parse(plain, at)
        return [] if audio is None else [audio]

    def _text_with_placeholders(
        self, text: str, at: str, placeholders: list[AudioPart] | None
    ) -> list[TextPart | AudioPart]:
        if placeholders is None:
            return [TextPart(text)]
        parts: list[TextPart | AudioPart] = []
        first, *others = text.split(AUDIO_PLACEHOLDER)
        if first or not others:
            parts.append(TextPart(first))
        for text_between in others:
            if placeholders:
                parts.append(placeholders.pop(0))
            else:
                self._log.note(at, f"has more {AUDIO_PLACEHOLDER} than the record has audios")
            if text_between:
                parts.append(TextPart(text_between))
        return parts

    def _dicts(self, value: Any, at: str) -> list[dict[str, Any]] | None:
        """Reads a list of objects, or the JSON text of one (parquet cannot hold objects of different shapes)."""
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                self._log.note(at, f"is a string but not JSON: {error.msg}")
                return None
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
            self._log.note(at, f"must be a list of objects, not {kind_of(value)}")
            return None
        return [dict(item) for item in value]


def _listed_mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def _num_audio_parts(message: Mapping[str, Any]) -> int:
    return sum(part.get("type") in ("audio", *FOREIGN_AUDIO_PARTS) for part in _listed_mappings(message.get("content")))


def _is_recording(key: str, value: Any) -> bool:
    """Whether a value that nothing reads looks like a recording, by its key or by itself."""
    if isinstance(value, (list, tuple)):
        return any(_is_recording(key, item) for item in value[:1])
    if isinstance(value, str):
        return key in RECORDING_KEYS or value.lower().endswith(AUDIO_SUFFIXES)
    return isinstance(value, bytes) or (isinstance(value, Mapping) and not {"bytes", "array"}.isdisjoint(value))


def _texts(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """All texts of a record with their fields, but for paths: names of files may be of bytes that are no UTF-8."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("path", "audio", "audios", "url", "audio_url", "input_audio"):
                yield from _texts(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, (list, tuple)) and not (value and isinstance(value[0], (int, float))):
        for index, item in enumerate(value):
            yield from _texts(item, f"{at}[{index}]")


def _hint(wanted: str, present: Mapping[str, Any], where: str) -> str:
    if wanted == "messages" and "codes" in present:
        return (
            "; a clip with codes is no conversation: `audiollm speech-data` makes training records of clips with texts"
        )
    if wanted == "messages" and (found := formats_of(present)):
        command = conversion_command(where.rpartition(":")[0] or "FILE", FORMATS[found[0]].is_chat)
        return f"; this looks like {FORMATS[found[0]].title}: make records of it with `{command}`"
    close = difflib.get_close_matches(wanted, [str(key) for key in present], n=1)
    return f"; did you mean it by {close[0]!r}?" if close else ""


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(str(key) for key in list(keys)[:10]) or "no keys"
