"""The conversation record: what an Audio-LLM is trained on and asked.

One record is ``{"id", "messages": [{"role", "content"}], "task", "tools", …}``. Content is a string or a list of parts,
``{"type": "text", "text"}`` or ``{"type": "audio", …}`` with exactly one of a path, the bytes of a file, samples, or
ready codes. The validator names file, line and field.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from .audio import AudioError, AudioInfo, Mono, load_audio, probe_audio, resample, stream_audio, waveform_from_array
from .manifest import Manifest, RecordError, checked_index, open_manifest

ROLES = ("system", "user", "assistant", "tool")
RECORD_KEYS = ("id", "messages", "task", "tools", "audios")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
TEXT_KEYS = ("type", "text")
AUDIO_KEYS = ("type", "audio", "path", "url", "bytes", "array", "sampling_rate", "codes")
AUDIO_PLACEHOLDER = "<audio>"  # marks the place of the next entry of "audios" in a record's text
MAX_PROBLEMS = 100
_AUDIO_VALUE_KEYS = frozenset({"path", "bytes", "array", "sampling_rate"})  # of a datasets.Audio value

_FileBytes = bytes  # AudioPart has a field called bytes


class ConversationError(RecordError):
    """A conversation record that is not one; the message is ``file:line: field: reason``."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one record."""

    where: str  # file and line
    field: str  # such as messages[1].content[0].text; empty: the record as a whole
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.reason) if part)


@dataclass(frozen=True)
class TextPart:
    """A piece of text."""

    text: str

    def to_dict(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, eq=False)
class AudioPart:
    """A piece of audio: exactly one of path, bytes, array (with its rate) and codes."""

    path: str | None = None
    bytes: _FileBytes | None = field(default=None, repr=False)  # of an audio file
    array: np.ndarray | None = field(default=None, repr=False)  # samples [N] or [C, N]
    sampling_rate: int | None = None  # Hz, of the array
    codes: list[int] | None = field(default=None, repr=False)  # one codebook's, each >= 0
    where: str = field(default="", repr=False)  # its place in its file, for messages; not compared

    def __post_init__(self) -> None:
        kinds = [name for name in ("path", "bytes", "array", "codes") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"audio holds {' and '.join(kinds) or 'nothing'}; give one of path, bytes, array, codes")
        if (self.array is None) != (self.sampling_rate is None):
            raise ValueError("audio: give array and sampling_rate together")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AudioPart):
            return NotImplemented
        names = ("path", "bytes", "sampling_rate", "codes")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        if self.array is None or other.array is None:
            return same and self.array is other.array
        return same and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.path, self.bytes, self.sampling_rate))

    def load(self, sample_rate: int | None = None, mono: Mono = "first") -> tuple[Tensor, int]:
        """Decodes the audio.

        The defaults, native rate and first channel, are how an audio tokenizer wants it (it resamples its own way):
        so codes made while training equal codes made beforehand by :func:`audiollm.data.corpus.tokenize_corpus`.

        Args:
            sample_rate: Hz to resample to; ``None`` keeps the recording's own.
            mono: "first" or "mean", as for :func:`audiollm.data.audio.load_audio`.

        Returns:
            ``(waveform float32 [N], sample_rate)``.

        Raises:
            AudioError: the recording cannot be used; the message names the record too.
            ValueError: the part holds codes.
        """
        if self.codes is not None:
            raise ValueError(f"{self.where or 'audio part'}: holds codes already; there is nothing to decode")
        with self._errors_named():
            if self.array is None:
                return load_audio(self.file, sample_rate, mono)
            waveform = waveform_from_array(self.array, mono)
            rate = self.sampling_rate
            assert rate is not None  # __post_init__ pairs them
            if sample_rate is None or sample_rate == rate:
                return waveform, rate
            return resample(waveform, rate, sample_rate), sample_rate

    def stream(self, mono: Mono = "first", block_seconds: float = 30.0) -> Iterator[Tensor]:
        """Decodes an audio file block by block at its own rate, in flat memory; together the blocks equal :meth:`load`.

        Raises:
            AudioError: as for :meth:`load`, when the iteration reaches the defect.
            ValueError: the part holds no file.
        """
        with self._errors_named():
            yield from stream_audio(self.file, None, mono, block_seconds)

    def probe(self) -> AudioInfo:
        """Reads rate, channels and length of the audio, from the file's header where that tells.

        Raises:
            AudioError: the recording cannot be used; the message names the record too.
            ValueError: the part holds codes.
        """
        with self._errors_named():
            if self.array is None:
                return probe_audio(self.file)
            num_samples = len(waveform_from_array(self.array, "first"))
            assert self.sampling_rate is not None  # __post_init__ pairs them
            num_channels = 1 if self.array.ndim == 1 else len(self.array)
            return AudioInfo(self.sampling_rate, num_channels, num_samples, f"array {self.array.dtype}")

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except AudioError as error:
            raise AudioError(f"{self.where}: {error.source}" if self.where else error.source, error.reason) from error

    @property
    def file(self) -> str | _FileBytes:
        """The path or the bytes of the audio file; for parts that hold one of them."""
        source = self.path if self.path is not None else self.bytes
        if source is None:
            raise ValueError(f"{self.where or 'audio part'}: holds {'codes' if self.codes else 'samples'}, not a file")
        return source

    def to_dict(self) -> dict[str, Any]:
        if self.codes is not None:
            return {"type": "audio", "codes": list(self.codes)}
        if self.array is not None:
            return {"type": "audio", "array": self.array, "sampling_rate": self.sampling_rate}
        return {"type": "audio", "path": self.path} if self.path is not None else {"type": "audio", "bytes": self.bytes}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str  # one of ROLES
    content: list[TextPart | AudioPart]
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        optional = {"name": self.name, "tool_calls": self.tool_calls, "tool_call_id": self.tool_call_id}
        present = {key: value for key, value in optional.items() if value is not None}
        return {"role": self.role, "content": [part.to_dict() for part in self.content], **present}


@dataclass(frozen=True)
class Conversation:
    """One record."""

    id: str  # the record's own, or else its place, such as train.jsonl:7
    messages: list[Message]
    task: str | None = None
    tools: list[dict[str, Any]] | None = None  # JSON schemas of the functions that the assistant may call
    metadata: dict[str, Any] = field(default_factory=dict)  # every other key of the record
    where: str = field(default="", compare=False, repr=False)  # file and line, for messages

    @property
    def audio_parts(self) -> list[AudioPart]:
        """All audio of the conversation, in order."""
        return [part for message in self.messages for part in message.content if isinstance(part, AudioPart)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the record; :func:`parse_conversation` of it gives this conversation back."""
        optional = {"task": self.task, "tools": self.tools}
        present = {key: value for key, value in optional.items() if value is not None}
        messages = [message.to_dict() for message in self.messages]
        return {"id": self.id, "messages": messages, **present, **self.metadata}


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


def check_conversation(
    record: Any,
    *,
    where: str = "",
    base_dir: str | os.PathLike[str] | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
) -> tuple[Conversation | None, list[Problem]]:
    """Does what :func:`parse_conversation` does, but returns all problems instead of raising the first.

    Returns:
        ``(conversation, [])``, or ``(None, problems)`` with at least one problem.
    """
    folder = None if base_dir is None else os.path.abspath(base_dir)
    parser = _Parser(where, folder, codebook_size, for_training)
    conversation = parser.conversation(record)
    return (None, parser.problems) if parser.problems else (conversation, [])


def parse_audio_part(value: Any, *, where: str = "", base_dir: str | os.PathLike[str] | None = None) -> AudioPart:
    """Checks a single audio value, as a manifest of clips holds it.

    Args:
        value: an audio part without its type, or what stands under its key ``audio``: a path, bytes, a
            ``datasets.Audio`` value.
        where: file, line and field, for messages.
        base_dir: folder that a relative path starts from.

    Raises:
        ConversationError: names place and field.
    """
    part = value if isinstance(value, Mapping) and not _AUDIO_VALUE_KEYS.issuperset(value) else {"audio": value}
    parser = _Parser(where, None if base_dir is None else os.path.abspath(base_dir), None, False)
    audio = parser._audio({key: item for key, item in part.items() if item is not None}, "audio")
    if audio is None or parser.problems:
        problem = parser.problems[0]
        raise ConversationError(problem.where, f"{problem.field}: {problem.reason}")
    return audio


class Conversations(Sequence[Conversation]):
    """The conversations of a manifest, each read and checked when asked for.

    Args:
        manifest: the records.
        codebook_size: as for :func:`parse_conversation`.
        for_training: as for :func:`parse_conversation`.
    """

    def __init__(self, manifest: Manifest, codebook_size: int | None = None, for_training: bool = False) -> None:
        self.manifest = manifest
        self._codebook_size = codebook_size
        self._for_training = for_training

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.manifest.name

    @property
    def fingerprint(self) -> str:
        """sha256 of the records (not of the recordings they point to), for run records."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._conversation(i) for i in range(len(self))[index]]
        return self._conversation(checked_index(self, index))

    def _conversation(self, index: int) -> Conversation:
        try:
            record = self.manifest[index]
        except RecordError as error:
            raise ConversationError(error.where, error.reason) from error
        if isinstance(record, Conversation):
            record = record.to_dict()
        return parse_conversation(
            record,
            where=self.manifest.where(index),
            base_dir=self.manifest.base_dir(index),
            codebook_size=self._codebook_size,
            for_training=self._for_training,
        )


def load_conversations(
    source: Any,
    *,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
) -> Conversations:
    """Opens conversations, to be read one by one.

    Args:
        source: a JSONL, JSON or parquet file, a folder or glob pattern of them, a folder written by ``datasets``, a Hub
            id, a ``datasets.Dataset``, or a list of records or conversations.
        base_dir: folder that relative audio paths start from; by default the folder of the file they are written in.
        split: which split of a data set that has several; "train" if it has one of that name.
        codebook_size: codes in records must be below this; ``None``: only not negative.
        for_training: require an assistant turn in every record.

    Returns:
        A sequence (length, access by index, slices) with a ``fingerprint``. Reading a bad record raises
        :class:`ConversationError`; :func:`validate_conversations` finds all of them beforehand.

    Raises:
        ConversationError: no such source, or nothing in it.
    """
    try:
        manifest = open_manifest(source, base_dir=base_dir, split=split)
    except RecordError as error:
        raise ConversationError(error.where, error.reason) from error
    if len(manifest) == 0:
        raise ConversationError(manifest.name, "holds no records")
    return Conversations(manifest, codebook_size, for_training)


def validate_conversations(
    source: Any,
    *,
    check_audio: bool = False,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
    max_problems: int = MAX_PROBLEMS,
) -> list[Problem]:
    """Checks every record and reports everything that is wrong.

    Args:
        source: as for :func:`load_conversations`.
        check_audio: open every recording too: missing, empty, truncated, not audio. (Defects that only decoding the
            whole file shows, such as a NaN sample, are left to the run.)
        base_dir: as for :func:`load_conversations`.
        split: as for :func:`load_conversations`.
        codebook_size: as for :func:`load_conversations`.
        for_training: as for :func:`load_conversations`.
        max_problems: stop after so many.

    Returns:
        The problems, in the order of the records; empty if all is well.
    """
    try:
        conversations = load_conversations(source, base_dir=base_dir, split=split)
    except ConversationError as error:
        return [Problem(error.where, "", error.reason)]
    manifest = conversations.manifest
    problems: list[Problem] = []
    first_place: dict[int, int] = {}
    for index in range(len(manifest)):
        try:
            record = manifest[index]
        except RecordError as error:
            problems.append(Problem(error.where, "", error.reason))
            continue
        conversation, found = check_conversation(
            record.to_dict() if isinstance(record, Conversation) else record,
            where=manifest.where(index),
            base_dir=manifest.base_dir(index),
            codebook_size=codebook_size,
            for_training=for_training,
        )
        problems += found
        if conversation is not None:
            # The hash of the id stands for it: 8 bytes instead of a string per record.
            earlier = first_place.setdefault(hash(conversation.id), index)
            if earlier != index:
                reason = f"{conversation.id!r} is taken by {manifest.where(earlier)}; ids must differ"
                problems.append(Problem(conversation.where, "id", reason))
            if check_audio:
                problems += _audio_problems(conversation)
        if len(problems) >= max_problems:
            break
    return problems[:max_problems]


def _audio_problems(conversation: Conversation) -> list[Problem]:
    problems = []
    for number, message in enumerate(conversation.messages):
        for place, part in enumerate(message.content):
            if not isinstance(part, AudioPart) or part.codes is not None:
                continue
            try:
                part.probe()
            except AudioError as error:
                # The part's own place is in the error's source already; here it is the field.
                source = error.source.removeprefix(f"{part.where}: ")
                reason = str(AudioError(source, error.reason))
                problems.append(Problem(conversation.where, f"messages[{number}].content[{place}]", reason))
    return problems


class _Parser:
    """Reads one record and notes what is wrong with it; what it returns counts only if nothing is."""

    def __init__(self, where: str, base_dir: str | None, codebook_size: int | None, for_training: bool) -> None:
        self.problems: list[Problem] = []
        self._where = where
        self._base_dir = base_dir
        self._codebook_size = codebook_size
        self._for_training = for_training

    def _fail(self, field_name: str, reason: str) -> None:
        self.problems.append(Problem(self._where, field_name, reason))

    def conversation(self, record: Any) -> Conversation | None:
        if not isinstance(record, Mapping):
            self._fail("", f"a record is an object with the key messages, not {_kind(record)}")
            return None
        present = {key: value for key, value in record.items() if value is not None}
        if "messages" not in present:
            self._fail("messages", f"missing{_hint('messages', present)}; the record has {_listed(present)}")
            return None
        identifier = present.get("id", os.path.basename(self._where))
        if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
            self._fail("id", f"must be a string or a whole number, not {_kind(identifier)}")
        task = present.get("task")
        if task is not None and not isinstance(task, str):
            self._fail("task", f"must be a string, not {_kind(task)}")
        messages = self._messages(present["messages"], present.get("audios"))
        tools = self._dicts(present.get("tools"), "tools")
        metadata = {key: value for key, value in present.items() if key not in RECORD_KEYS}
        return Conversation(str(identifier), messages, task, tools, metadata, self._where)

    def _messages(self, value: Any, audios: Any) -> list[Message]:
        if not _is_list(value):
            self._fail("messages", f"must be a list of messages, not {_kind(value)}")
            return []
        if not value:
            self._fail("messages", "is empty; give at least one message")
            return []
        placeholders = self._placeholders(audios)
        messages = [self._message(item, f"messages[{i}]", placeholders) for i, item in enumerate(value)]
        if placeholders is not None and placeholders:
            self._fail("audios", f"{len(placeholders)} of them have no {AUDIO_PLACEHOLDER} in the text to stand in")
        if self._for_training and not any(isinstance(m, Mapping) and m.get("role") == "assistant" for m in value):
            self._fail("messages", "have no assistant turn, so there is nothing to learn")
        return [message for message in messages if message is not None]

    def _placeholders(self, audios: Any) -> list[AudioPart] | None:
        """Reads "audios", whose entries take the places of ``<audio>`` in the text; ``None`` if there are none."""
        if audios is None:
            return None
        if not _is_list(audios):
            self._fail("audios", f"must be a list, not {_kind(audios)}")
            return None
        parts = [self._audio({"type": "audio", "audio": item}, f"audios[{i}]") for i, item in enumerate(audios)]
        return [part for part in parts if part is not None]

    def _message(self, value: Any, at: str, placeholders: list[AudioPart] | None) -> Message | None:
        if not isinstance(value, Mapping):
            self._fail(at, f"must be an object with role and content, not {_kind(value)}")
            return None
        message = {key: item for key, item in value.items() if item is not None}
        self._known_keys(message, MESSAGE_KEYS, at)
        role = message.get("role")
        if role is None:
            self._fail(f"{at}.role", f"missing; use one of {', '.join(ROLES)}")
        elif role not in ROLES:
            self._fail(f"{at}.role", f"{role!r} is not one of {', '.join(ROLES)}")
        for key in ("name", "tool_call_id"):
            if not isinstance(message.get(key, ""), str):
                self._fail(f"{at}.{key}", f"must be a string, not {_kind(message[key])}")
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
            self._fail(f"{at}.content", f"missing{_hint('content', message)}")
            return []
        if isinstance(content, str):
            parts = self._text_with_placeholders(content, f"{at}.content", placeholders)
        elif _is_list(content):
            read = [self._part(item, f"{at}.content[{i}]", placeholders) for i, item in enumerate(content)]
            parts = [part for some in read for part in some]
            if len(content) and not all(read):
                return parts  # a problem has been noted
        else:
            self._fail(f"{at}.content", f"must be a string or a list of parts, not {_kind(content)}")
            return []
        is_empty = all(isinstance(part, TextPart) and not part.text for part in parts)
        if is_empty and not may_be_empty:
            self._fail(f"{at}.content", "is empty; give text or audio")
        return parts

    def _part(self, value: Any, at: str, placeholders: list[AudioPart] | None) -> list[TextPart | AudioPart]:
        if not isinstance(value, Mapping):
            self._fail(at, f'must be an object such as {{"type": "text", "text": …}}, not {_kind(value)}')
            return []
        part = {key: item for key, item in value.items() if item is not None}
        kind = part.get("type")
        if kind == "text":
            self._known_keys(part, TEXT_KEYS, at)
            text = part.get("text")
            if isinstance(text, str):
                return self._text_with_placeholders(text, f"{at}.text", placeholders)
            self._fail(f"{at}.text", "missing" if text is None else f"must be a string, not {_kind(text)}")
            return []
        if kind == "audio":
            audio = self._audio(part, at)
            return [] if audio is None else [audio]
        fix = "missing" if kind is None else f"{kind!r} is not known"
        self._fail(f"{at}.type", f'{fix}; use "text" or "audio"')
        return []

    def _text_with_placeholders(
        self, text: str, at: str, placeholders: list[AudioPart] | None
    ) -> list[TextPart | AudioPart]:
        if placeholders is None:
            return [TextPart(text)]
        parts: list[TextPart | AudioPart] = []
        first, *others = text.split(AUDIO_PLACEHOLDER)
        if first or not others:
            parts.append(TextPart(first))
        for piece in others:
            if placeholders:
                parts.append(placeholders.pop(0))
            else:
                self._fail(at, f"has more {AUDIO_PLACEHOLDER} than the record has audios")
            if piece:
                parts.append(TextPart(piece))
        return parts

    def _audio(self, part: Mapping[str, Any], at: str) -> AudioPart | None:
        num_problems = len(self.problems)
        self._known_keys(part, AUDIO_KEYS, at)
        values = {key: part[key] for key in AUDIO_KEYS[2:] if key in part}
        audio = part.get("audio")
        if isinstance(audio, Mapping):  # a datasets.Audio value
            inner = {key: item for key, item in audio.items() if item is not None}
            self._known_keys(inner, sorted(_AUDIO_VALUE_KEYS), f"{at}.audio")
            values |= inner
        elif isinstance(audio, (str, os.PathLike)):
            values["path"] = audio
        elif isinstance(audio, (bytes, bytearray, memoryview)):
            values["bytes"] = audio
        elif audio is not None:
            values["array"] = audio
        if "url" in values:
            values.setdefault("path", values.pop("url"))
        # datasets writes the path beside the bytes or samples it has read from it.
        if "bytes" in values or "array" in values:
            values.pop("path", None)
        kinds = [key for key in ("path", "bytes", "array", "codes") if key in values]
        if len(kinds) != 1:
            reason = f"holds {' and '.join(kinds)}" if kinds else "holds no audio"
            if len(self.problems) == num_problems or kinds:
                self._fail(at, f"{reason}; give exactly one of path, bytes, array (with sampling_rate) or codes")
            return None
        if kinds != ["array"] and "sampling_rate" in values:
            self._fail(f"{at}.sampling_rate", f"goes with array only; {kinds[0]} brings its own")
        where = f"{self._where}: {at}" if self._where else at
        value = values[kinds[0]]
        if kinds == ["path"]:
            path = self._path(value, f"{at}.path")
            return path and AudioPart(path=path, where=where)
        if kinds == ["bytes"]:
            return self._bytes(value, f"{at}.bytes", where)
        if kinds == ["codes"]:
            codes = self._codes(value, f"{at}.codes")
            return codes and AudioPart(codes=codes, where=where)
        return self._array(value, values.get("sampling_rate"), at, where)

    def _path(self, value: Any, at: str) -> Any:
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            self._fail(at, f"must be the path of an audio file, not {_kind(value) if value != '' else 'empty'}")
            return None
        path = os.fspath(value).removeprefix("file://")
        if "://" in path or path.startswith("data:"):
            self._fail(at, f"{path[:80]!r} is a URL; download the file and give its path")
            return None
        return path if self._base_dir is None else os.path.normpath(os.path.join(self._base_dir, path))

    def _bytes(self, value: Any, at: str, where: str) -> AudioPart | None:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            self._fail(at, f"must be the bytes of an audio file, not {_kind(value)}")
            return None
        return AudioPart(bytes=bytes(value), where=where)

    def _array(self, value: Any, sampling_rate: Any, at: str, where: str) -> AudioPart | None:
        if not isinstance(value, (np.ndarray, Tensor, list)):
            self._fail(f"{at}.array", f"must hold samples [N] or [C, N], not {_kind(value)}")
            return None
        if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, int) or sampling_rate <= 0:
            given = "missing" if sampling_rate is None else f"{sampling_rate!r}"
            self._fail(f"{at}.sampling_rate", f"{given}; give the array's rate in Hz, such as 16000")
            return None
        try:
            waveform_from_array(value)
            samples = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        except ValueError as error:  # AudioError, or rows of different lengths
            self._fail(f"{at}.array", error.reason if isinstance(error, AudioError) else str(error))
            return None
        return AudioPart(array=samples, sampling_rate=sampling_rate, where=where)

    def _codes(self, value: Any, at: str) -> Any:
        codes = value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value
        if not _is_list(codes):
            self._fail(at, f"must be a list of whole numbers, not {_kind(codes)}")
            return None
        if not codes:
            self._fail(at, "is empty; leave the audio part out")
            return None
        limit = self._codebook_size
        if all(type(code) is int for code in codes) and min(codes) >= 0 and (limit is None or max(codes) < limit):
            return list(codes)
        for index, code in enumerate(codes):
            if type(code) is not int:
                self._fail(f"{at}[{index}]", f"must be a whole number, not {_kind(code)}")
                break
            if code < 0 or (limit is not None and code >= limit):
                allowed = "0 or more" if limit is None else f"from 0 to {limit - 1} for this codebook"
                self._fail(f"{at}[{index}]", f"{code} is out of range; codes are {allowed}")
                break
        return None

    def _dicts(self, value: Any, at: str) -> list[dict[str, Any]] | None:
        """Reads a list of objects, or the JSON text of one (parquet cannot hold objects of different shapes)."""
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                self._fail(at, f"is a string but not JSON: {error.msg}")
                return None
        if not _is_list(value) or not all(isinstance(item, Mapping) for item in value):
            self._fail(at, f"must be a list of objects, not {_kind(value)}")
            return None
        return [dict(item) for item in value]

    def _known_keys(self, value: Mapping[str, Any], known: Sequence[str], at: str) -> None:
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
                self._fail(f"{at}.{key}", f"unknown key; {hint}")


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _hint(wanted: str, present: Mapping[str, Any]) -> str:
    if wanted == "messages" and "conversations" in present:
        return "; rename conversations to messages, with role and content in each"
    close = difflib.get_close_matches(wanted, [str(key) for key in present], n=1)
    return f"; did you mean it by {close[0]!r}?" if close else ""


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(str(key) for key in list(keys)[:10]) or "no keys"


def _kind(value: Any) -> str:
    """Names a value's JSON type, and the value where it is short."""
    names = {dict: "an object", list: "a list", type(None): "null", bool: "a boolean", str: "a string"}
    name = names.get(type(value)) or ("a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")
    return f"{name} ({value!r})" if isinstance(value, (str, int, float)) and len(repr(value)) < 40 else name
