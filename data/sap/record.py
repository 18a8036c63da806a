"""Semantic-Acoustic Primitives (SAP): what is said in a clip, by what voice, among which sounds.

The record of UniAudio-Token (arXiv:2605.31521): the text that a tokenizer is trained to make readable from its codes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from audiollm.data.files.text import is_whole
from audiollm.data.voices.attributes import VocalAttributes

EventType = Literal["transient", "persistent"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
SAP_ATTRIBUTES = ("age", "gender", "emotion", "accent", "prosody", "timbre")
"""The vocal attributes of a SAP record, in the order they are written."""

Style = Literal["compact", "json"]
SAYS_NOTHING = {"", "null", "none", "n/a", "na", "unknown", "unspecified", "not applicable", "undefined", "-"}
"""What models write where they have nothing to say."""


class SapError(ValueError):
    """Something is no SAP record.

    Args:
        problems: what is wrong, each with its field.
        where: file and line, or nothing.
    """

    def __init__(self, problems: Sequence[str], where: str = "") -> None:
        super().__init__(list(problems), where)
        self.problems = list(problems)
        self.where = where

    def __str__(self) -> str:
        return (f"{self.where}: " if self.where else "") + "; ".join(self.problems)


@dataclass(frozen=True, kw_only=True)
class SoundEvent:
    """A sound that is heard.

    Attributes:
        label: its class in words, such as "dog bark" (``class`` in JSON).
        type: "transient" (a door slams) or "persistent" (an engine runs).
        attributes: more of it in words, such as "distant, muffled".

    Raises:
        SapError: if a value is of another kind or blank.
    """

    label: str
    type: EventType
    attributes: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", _text("class", self.label))
        if self.label is None:
            raise SapError(["class is null: name the sound"])
        if self.type not in EVENT_TYPES:
            raise SapError([f"type={self.type!r}: use {' or '.join(EVENT_TYPES)}"])
        object.__setattr__(self, "attributes", _text("attributes", self.attributes))

    def to_dict(self) -> dict[str, Any]:
        """As it is written in JSON."""
        return {"class": self.label, "type": self.type, "attributes": self.attributes}


@dataclass(frozen=True, kw_only=True)
class AuditoryScene:
    """What is heard besides words and voices.

    Attributes:
        summary: the scene in a sentence or two.
        events: the sounds in it; any sequence, kept as a tuple.

    Raises:
        SapError: if a value is of another kind or blank.
    """

    summary: str | None = None
    events: tuple[SoundEvent, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", _text("summary", self.summary))
        object.__setattr__(self, "events", tuple(self.events))

    def to_dict(self) -> dict[str, Any]:
        """As it is written in JSON."""
        return {"summary": self.summary, "events": [event.to_dict() for event in self.events]}


@dataclass(frozen=True, kw_only=True)
class SapRecord:
    """One clip in words.

    Attributes:
        linguistic_content: the words spoken, verbatim; None where nobody speaks.
        vocal_attributes: the voice, by `SAP_ATTRIBUTES`; one that says nothing becomes None.
        auditory_scenes: the sounds.

    Raises:
        SapError: if a value is of another kind or blank, or the voice has attributes that SAP does not know.
    """

    linguistic_content: str | None = None
    vocal_attributes: VocalAttributes | None = None
    auditory_scenes: AuditoryScene = field(default_factory=AuditoryScene)

    def __post_init__(self) -> None:
        object.__setattr__(self, "linguistic_content", _text("linguistic_content", self.linguistic_content))
        given = self.vocal_attributes.given if self.vocal_attributes else {}
        others = given.keys() - set(SAP_ATTRIBUTES)
        if others:
            raise SapError([f"vocal_attributes has {', '.join(sorted(others))}: a SAP record knows {_NAMES}"])
        for name, value in given.items():
            _text(f"vocal_attributes.{name}", value)
        if not given:
            object.__setattr__(self, "vocal_attributes", None)

    @property
    def is_speech(self) -> bool:
        """Whether somebody speaks."""
        return self.linguistic_content is not None

    def to_dict(self) -> dict[str, Any]:
        """The record with every key, null where nothing is said; `parse_sap` gives the record back."""
        given = self.vocal_attributes.given if self.vocal_attributes else {}
        return {
            "linguistic_content": self.linguistic_content,
            "vocal_attributes": {name: given.get(name) for name in SAP_ATTRIBUTES},
            "auditory_scenes": self.auditory_scenes.to_dict(),
        }


_NAMES = ", ".join(SAP_ATTRIBUTES)


def render_sap(record: SapRecord, style: Style = "compact") -> str:
    """Writes a record as the text that a decoder learns to write; `parse_sap` gives the record back.

    Both styles are JSON of one spelling, in a fixed order of keys. ``compact`` leaves out what is null, except
    ``linguistic_content``, which every record begins with: a decoder decides first whether anyone speaks. The length
    of the target is the cost of training, and nulls in a fixed place teach nothing more.

    Args:
        record: the record.
        style: "compact", for training, or "json" with every key, for files that others read.

    Returns:
        JSON on one line.

    Raises:
        ValueError: if the style is unknown.
    """
    content = record.to_dict()
    if style == "json":
        return json.dumps(content, ensure_ascii=False)
    if style != "compact":
        raise ValueError(f"style={style!r}: use one of {', '.join(get_args(Style))}")
    shortened = {"linguistic_content": content.pop("linguistic_content")} | _without_empty(content)
    return json.dumps(shortened, ensure_ascii=False, separators=(",", ":"))


def _without_empty(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = ((key, _without_empty(item)) for key, item in value.items())
    return {key: item for key, item in items if item not in (None, {}, [])}


def _text(name: str, value: Any) -> str | None:
    """A text without blanks around it."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise SapError([f"{name}={value!r}: give text or null"])
    if not value.strip():
        raise SapError([f"{name} is empty: give text or null"])
    if not is_whole(value):
        raise SapError([f"{name}={value!r}: holds half a surrogate pair, which no file can"])
    return value.strip()


EVENT_FIELDS = tuple("class" if item.name == "label" else item.name for item in dataclasses.fields(SoundEvent))
