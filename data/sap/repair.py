"""Makes SAP records of what language models answer, without adding anything, and says what was changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from audiollm.data.files.text import is_whole
from audiollm.data.voices.attributes import VocalAttributes

from .lenient_json import read_lenient_json
from .parsing import EVENT_LISTS, RECORD_KEYS, RELEASE_EVENT_KEYS, RELEASE_KEYS, RELEASE_SCENE_KEYS, unfenced
from .record import (
    EVENT_FIELDS,
    EVENT_TYPES,
    SAP_ATTRIBUTES,
    SAYS_NOTHING,
    AuditoryScene,
    SapRecord,
    SoundEvent,
)

# Words for the two types of events; "momentary" and the like are what models write.
_TYPE_WORDS = {
    "transient": {"discrete", "momentary", "brief", "short", "instantaneous", "impulsive", "sudden", "one-off"},
    "persistent": {"continuous", "continual", "sustained", "ongoing", "steady", "constant", "background", "ambient"},
}
_OLDEST = 150
_WRAPPERS = ("sap", "record", "result", "output", "data", "json", "response")


def repair_sap(
    value: str | Mapping[str, Any], *, unknown_emotion: str | None = None
) -> tuple[SapRecord | None, list[str]]:
    """Reads a record out of a model's answer as far as it can be told what was meant.

    Fences, prose around the object, other quotes, trailing commas, missing brackets, other spellings of keys and
    values are understood; what is missing, in no closed set or broken off becomes null. Nothing is made up. The result
    is a record, not a good one: check it with `audiollm.data.sap.validation.validate_sap`.

    Args:
        value: the answer, or an object.
        unknown_emotion: what to write for an emotion outside the set: None for null; "neutral" is what the release of
            UniAudio-Token writes.

    Returns:
        The record and what was repaired, in words; None, with the reason last, if no record can be found.

    Raises:
        ValueError: if ``unknown_emotion`` is no emotion.
    """
    VocalAttributes(emotion=unknown_emotion)  # raises
    repairs: list[str] = []
    content: Any = value
    if isinstance(value, str):
        try:
            content, repairs = read_lenient_json(unfenced(value))
        except ValueError as error:  # UnreadableError, or a number longer than Python reads
            return None, [f"cannot be read: {error}"]
    content = _unwrapped(content, repairs)
    if not isinstance(content, Mapping):
        return None, [*repairs, "cannot be read: there is no object"]
    parts = _named(content, "", RELEASE_KEYS, RECORD_KEYS, repairs)
    if not parts:
        return None, [*repairs, "cannot be read: the object has no field of a SAP record"]
    if "linguistic_content" not in parts:
        repairs.append("linguistic_content was missing: null")
    record = SapRecord(
        linguistic_content=_text(parts.get("linguistic_content"), "linguistic_content", repairs),
        vocal_attributes=_voice(parts.get("vocal_attributes"), unknown_emotion, repairs),
        auditory_scenes=_scene(parts.get("auditory_scenes"), repairs),
    )
    return record, list(dict.fromkeys(repairs))


def _unwrapped(content: Any, repairs: list[str]) -> Any:
    """The record inside a list of one, or inside an object of one."""
    while True:
        if isinstance(content, list) and len(content) == 1:
            content = content[0]
        elif isinstance(content, Mapping) and len(content) == 1 and _plain(next(iter(content))) in _WRAPPERS:
            content = next(iter(content.values()))
        else:
            return content
        repairs.append("took the record out of what it was wrapped in")


def _voice(value: Any, unknown_emotion: str | None, repairs: list[str]) -> VocalAttributes | None:
    name = "vocal_attributes"
    content = _object(value, name, {}, SAP_ATTRIBUTES, repairs)
    said = {key: item if _is_age(key, item) else _text(item, f"{name}.{key}", repairs) for key, item in content.items()}
    voice, left_out = VocalAttributes.from_record(said)
    if "emotion" in left_out and unknown_emotion is not None:
        voice = VocalAttributes(**(voice.given | {"emotion": unknown_emotion}))
    for key, item in left_out.items():
        repairs.append(f"{name}.{key} was {item!r}, which is in no closed set: {getattr(voice, key) or 'null'}")
    return voice


def _is_age(key: str, value: Any) -> bool:
    """Whether it is a number of years, which `VocalAttributes.from_record` understands."""
    return key == "age" and type(value) in (int, float) and value < _OLDEST


def _scene(value: Any, repairs: list[str]) -> AuditoryScene:
    name = "auditory_scenes"
    if isinstance(value, str):
        summary = _text(value, f"{name}.summary", repairs)
        if summary is not None:
            repairs.append(f"{name} was a text: taken as its summary")
        return AuditoryScene(summary=summary)
    content = _object(value, name, RELEASE_SCENE_KEYS, ("summary", *EVENT_LISTS), repairs)
    events: list[SoundEvent] = []
    for key, event_type in EVENT_LISTS.items():
        listed = content.get(key)
        if isinstance(listed, Mapping):
            listed = [listed]
            repairs.append(f"{name}.{key} was one event: taken as a list")
        if listed is None or listed in ("", "null", "none", "None"):
            continue
        if not isinstance(listed, list):
            repairs.append(f"dropped {name}.{key}, which is no list")
            continue
        for index, item in enumerate(listed):
            event = _event(item, event_type, f"{name}.{key}[{index}]", repairs)
            if event is not None:
                events.append(event)
    return AuditoryScene(summary=_text(content.get("summary"), f"{name}.summary", repairs), events=tuple(events))


def _event(value: Any, event_type: str | None, name: str, repairs: list[str]) -> SoundEvent | None:
    if isinstance(value, str) and event_type is not None:
        value = {"class": value}
        repairs.append(f"{name} was a text: taken as its class")
    if not isinstance(value, Mapping):
        repairs.append(f"dropped {name}, which is no object")
        return None
    content = _object(value, name, RELEASE_EVENT_KEYS, EVENT_FIELDS, repairs)
    label = _text(content.get("class"), f"{name}.class", repairs)
    said_type = event_type or _event_type(content.get("type"))
    if label is None or said_type is None:
        repairs.append(f"dropped {name}, which has no {'class' if label is None else 'known type'}")
        return None
    if event_type is None and said_type != content.get("type"):
        repairs.append(f"{name}.type was {content.get('type')!r}: {said_type}")
    attributes = _text(content.get("attributes"), f"{name}.attributes", repairs)
    return SoundEvent(label=label, type=said_type, attributes=attributes)  # type: ignore[arg-type]


def _event_type(value: Any) -> str | None:
    word = _plain(value) if isinstance(value, str) else ""
    return next((name for name in EVENT_TYPES if word == name or word in map(_plain, _TYPE_WORDS[name])), None)


def _object(
    value: Any, name: str, other_names: Mapping[str, str], allowed: tuple[str, ...], repairs: list[str]
) -> dict[str, Any]:
    if value is None or (isinstance(value, str) and value.strip().lower() in SAYS_NOTHING):
        return {}
    if not isinstance(value, Mapping):
        repairs.append(f"dropped {name}, which is no object")
        return {}
    return _named(value, name, other_names, allowed, repairs)


def _named(
    value: Mapping[str, Any], name: str, other_names: Mapping[str, str], allowed: tuple[str, ...], repairs: list[str]
) -> dict[str, Any]:
    """An object with its keys as they should be; others are dropped.

    A field that is given in two spellings counts once if both say the same, or one says nothing; else it cannot be told
    which is meant, and it is null.
    """
    known = {_plain(key): key for key in allowed} | {_plain(key): ours for key, ours in other_names.items()}
    content: dict[str, Any] = {}
    undecided: set[str] = set()
    for key, item in value.items():
        field = f"{name}.{key}" if name else str(key)
        our_key = known.get(_plain(key))
        if our_key is None:
            repairs.append(f"dropped {field}, which is unknown")
            continue
        if key != our_key and key not in other_names:
            repairs.append(f"{field} was taken as {our_key}")
        if our_key not in content:
            content[our_key] = item
            continue
        repairs.append(f"dropped {field}, which is given twice")
        earlier = content[our_key]
        if our_key not in undecided and None not in (earlier, item) and not _says_same(earlier, item):
            undecided.add(our_key)
            which = f"{name}.{our_key}" if name else our_key
            repairs[-1] = f"{which} is given twice with different values, {earlier!r:.40} and {item!r:.40}: null"
            content[our_key] = None
        elif our_key not in undecided and earlier is None and item is not None:
            repairs[-1] = f"took {field} where it is given twice, once as null"
            content[our_key] = item
    return content


def _says_same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.split() == other.split() or one.casefold().strip() == other.casefold().strip()
    return bool(one == other)


def _plain(key: Any) -> str:
    return re.sub(r"[\W_]+", "", str(key)).lower()


def _text(value: Any, name: str, repairs: list[str]) -> str | None:
    """A text; a list of texts is joined, what says nothing is null, and anything else is dropped."""
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(item, str) and item.strip() for item in value):
        repairs.append(f"{name} was a list: joined")
        value = ", ".join(item.strip() for item in value)
    if value in ([], {}):
        repairs.append(f"{name} was empty: null")
        return None
    if not isinstance(value, str):
        repairs.append(f"dropped {name}, which is no text: {value!r:.40}")
        return None
    # Somebody may well say "unknown"; nobody says "".
    nothing = {"", "null"} if name == "linguistic_content" else SAYS_NOTHING
    if value.strip().casefold() in nothing:
        repairs.append(f"{name} was {value!r}: null")
        return None
    if not is_whole(value):
        repairs.append(f"dropped {name}, which holds half a surrogate pair")
        return None
    return value
