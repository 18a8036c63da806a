"""What readers of other projects' records take and give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from audiollm.data.manifest import RecordError

OTHER_MEDIA = ("images", "image", "videos", "video")  # a record that needs them makes no sense to a model that hears
LABEL_OF_PREFERENCE = (
    "says whether the answer is wanted (KTO); every answer is learnt here: keep the wanted records, without label"
)
PREFERENCE_KEYS = ("chosen", "rejected", "rejected_response", "rejected_messages", "kto_tag")


class ShapeError(ValueError):
    """A record that its reader cannot take over.

    Args:
        field: where in the record; "" for the record as a whole.
        reason: what is wrong, and what to do about it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


@dataclass(frozen=True)
class Entry:
    """A record as it lies in its file, or why it cannot be read.

    Attributes:
        where: its place, for messages.
        base_dir: the folder that its relative paths start from.
        value: what it holds.
        error: why it cannot be read; ``value`` means nothing then.
    """

    where: str
    base_dir: str | None
    value: Any = None
    error: RecordError | None = None


@dataclass(frozen=True, kw_only=True)
class ForeignChat:
    """A conversation in the words of our records; whether all is well in it is for the parser of conversations.

    Attributes:
        record: with ``messages``, and ``audios`` for each ``<audio>`` in their texts.
        unread: keys that the reader has no use for. Those of the record itself are kept in it.
    """

    record: dict[str, Any]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ForeignClip:
    """A recording, or a part of one, and what is said of it.

    Attributes:
        audio: a path, the bytes of a file, or a ``datasets.Audio`` value.
        id: the name of the clip, if it has one.
        offset: seconds in front of the part that is meant.
        duration: seconds of that part; None: all that follows.
        text: the words spoken, or what ``text_key`` points at.
        translation: the words in another language.
        question: what is asked about the recording; ``answer`` is the reply to it then.
        answer: see there.
        language: spoken.
        speaker: who speaks.
        more: other facts, kept as they are.
        unread: keys among ``more`` that nothing reads.
    """

    audio: Any
    id: str | None = None
    offset: Any = None
    duration: Any = None
    text: Any = None
    translation: Any = None
    question: Any = None
    answer: Any = None
    language: Any = None
    speaker: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


Reading = ForeignChat | ForeignClip


@dataclass(frozen=True)
class Format:
    """A way in which a project writes records.

    Attributes:
        name: for ``--format``.
        title: for people.
        matches: whether a record is of this format.
        read: makes something of ours of a record; the name of a key that holds the text, if the user gave one, is the
            second argument. Raises ShapeError.
        is_chat: its records are conversations; else clips, of which an instruction makes conversations.
        opens: whether a file or folder is of this format as a whole; such are not looked into record by record.
        entries: the records of a file or folder; the second argument is the folder that relative paths start from, if
            the user gave one. Raises RecordError where there is nothing to go on with.
        is_of_files: a record is put together of several files, and none is met alone.
        demand: what users who write such records by hand have to call their keys; told of records that are of
            another format.
    """

    name: str
    title: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str | None], list[Reading]]
    is_chat: bool
    opens: Callable[[str], bool]
    entries: Callable[[str, str | None], Iterator[Entry]]
    is_of_files: bool = False
    demand: str = ""

    def readings(self, record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
        """What ``read`` makes of a record.

        Raises:
            ShapeError: it is of another format, or cannot be taken over.
        """
        if not self.matches(record):
            found = ", ".join(map(str, list(record)[:10]))
            raise ShapeError("", f"is not of {self.title}; it has {found}" + (self.demand and f": {self.demand}"))
        return self.read(record, text_key)


def never(path: str) -> bool:
    """``opens`` of formats that show only in their records."""
    return False


def refuse_other_uses(record: Mapping[str, Any], *, is_chat: bool = True) -> None:
    """Refuses records that are for other models or for another training.

    Args:
        record: of another project.
        is_chat: a ``label`` of true or false says whether its answer is wanted, as in data for KTO.

    Raises:
        ShapeError: pictures, or preferences.
    """
    for key in OTHER_MEDIA:
        if record.get(key):
            raise ShapeError(key, "belongs to a model that sees; records here hold text and sound")
    for key in PREFERENCE_KEYS:
        if record.get(key) is not None:
            raise ShapeError(key, "is a preference; supervised training takes records of one answer each")
    if is_chat and isinstance(record.get("label"), bool):
        raise ShapeError("label", LABEL_OF_PREFERENCE)


def checked_text(value: Any, at: str, *, may_be_empty: bool = False) -> str:
    """A value that has to be a text.

    Raises:
        ShapeError: it is missing, empty or something else.
    """
    if value is None:
        raise ShapeError(at, "missing")
    if not isinstance(value, str):
        raise ShapeError(at, f"must be a text, not a {type(value).__name__}")
    if not value.strip() and not may_be_empty:
        raise ShapeError(at, "is empty")
    return value


def filled(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its keys of no value: None, as parquet writes it, and the empty cells of tables."""
    return {key: value for key, value in record.items() if value is not None and value != ""}
