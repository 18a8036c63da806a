"""Makes SAP records of what language models answer, without adding anything, and says what was changed."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from json_repair import repair_json

from audiollm.data.voices.attributes import VocalAttributes

from .parsing import EVENT_LISTS, RECORD_KEYS, RELEASE_EVENT_KEYS, RELEASE_KEYS, RELEASE_SCENE_KEYS, unfenced
from .record import (
    EVENT_FIELDS,
    EVENT_TYPES,
    SAP_ATTRIBUTES,
    SAYS_NOTHING,
    AuditoryScene,
    SapRecord,
    SoundEvent,
    is_whole,
)

# Words for the two types of events; "momentary" and the like are what models write.
_TYPE_WORDS = {
    "transient": {"discrete", "momentary", "brief", "short", "instantaneous", "impulsive", "sudden", "one-off"},
    "persistent": {"continuous", "continual", "sustained", "ongoing", "steady", "constant", "background", "ambient"},
}
_OLDEST = 150
# A brace that opens an object, and none that stands in a sentence: "{as asked}".
_STARTS_OBJECT = re.compile(r"""\{(?=\s*(?:["'“‘„}]|\w+\s*:|\Z))""")
_THOUGHTS = re.compile(r".*</think>", re.DOTALL)
_END = "\ufdd0"  # marks where an answer ends; no text holds it: it is no character for interchange
_FIRST_HELD = 0xF0000  # the planes of private use
_HELD = re.compile("[\U000f0000-\U0010ffff]")
# A pair of surrogates is one character. What the text itself has of the planes is held too.
_ESCAPE = re.compile(
    r'\\(u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[\da-fA-F]{4}|["\\/bfnrt])|' + _HELD.pattern
)
_KEY = re.compile(r"""["'](\w+)["']\s*:""")
_CUT = object()  # a value that breaks off
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
            content = _read(unfenced(value), repairs)
        except ValueError as error:
            return None, [*repairs, f"cannot be read: {error}"]
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


def _read(text: str, repairs: list[str]) -> Any:
    """The first object of a text, its JSON repaired if need be.

    Raises:
        ValueError: there is none; the message is the reason.
    """
    try:
        return json.loads(text, object_pairs_hook=_with_each_key_once)
    except (json.JSONDecodeError, RecursionError):
        pass
    thoughts = _THOUGHTS.match(text)
    opening = _STARTS_OBJECT.search(text, thoughts.end() if thoughts else 0)
    if opening is None:
        raise ValueError("there is no object")
    before = text[: opening.start()].strip()
    if before:
        is_fence = re.fullmatch(r"```\w*", before) is not None
        repairs.append("took it out of its fence" if is_fence else "left out text around the object")
    # Strings that break off are closed by the library as if they were whole. The mark shows which those are.
    broken, held = _with_escapes_held(text[opening.start() :].replace(_END, ""))
    # An odd number of quotes: it breaks off inside a text. Closed here, or a bracket in that text may count as one.
    end = _END + '"' * (broken.count('"') % 2)
    try:
        found = repair_json(broken + end, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError) as error:
        raise ValueError("brackets are nested too deeply") from error
    _refuse_lost_keys(broken, found)
    if isinstance(found, list):  # the object, and what else of the text looks like JSON
        found = next((item for item in found if isinstance(item, dict)), found)
    repairs.append("repaired its JSON")
    whole = _without_cut(found, held, repairs)
    return None if whole is _CUT else whole


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Python would keep the last value of a key that is given twice, and say nothing."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return content


def _refuse_lost_keys(text: str, found: Any) -> None:
    """The same for broken JSON, of which the library keeps one value: fewer keys are left than the text holds.

    Raises:
        ValueError: a key is given twice.
    """
    kept = Counter(_keys(found))
    for name, count in Counter(_KEY.findall(text)).items():
        if count > kept[name] > 0:
            raise ValueError(f"{name!r} is given twice")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _keys(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _keys(item)


def _with_escapes_held(text: str) -> tuple[str, list[str]]:
    r"""Puts a character of private use in the place of each escape; returns the text and what they stand for.

    The library reads ``\f`` as two characters, drops a ``\n`` at the end of a text, and takes the two halves of one
    character for two.
    """
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        if len(held) > sys.maxunicode - _FIRST_HELD:
            raise ValueError("there are too many escapes in it")
        held.append(json.loads(f'"{match[0]}"'))
        return chr(_FIRST_HELD + len(held) - 1)

    return _ESCAPE.sub(hold, text), held


def _without_cut(value: Any, held: list[str], repairs: list[str]) -> Any:
    """A value with its escapes, and without the strings that hold the mark of the end: more of them was meant."""
    if isinstance(value, str):
        return _CUT if _END in value else _with_escapes(value, held)
    if isinstance(value, list):
        return [whole for item in value if (whole := _without_cut(item, held, repairs)) is not _CUT]
    if not isinstance(value, dict):
        return value
    content = {}
    for key, item in value.items():
        whole = _CUT if _END in key else _without_cut(item, held, repairs)
        if whole is _CUT:
            repairs.append(f"dropped {key.replace(_END, '')}, which breaks off")
        else:
            content[_with_escapes(key, held)] = whole
    return content


def _with_escapes(text: str, held: list[str]) -> str:
    return _HELD.sub(lambda match: held[ord(match[0]) - _FIRST_HELD], text)


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
    """An object with its keys as they should be; others are dropped, of two that mean the same the first is kept."""
    known = {_plain(key): key for key in allowed} | {_plain(key): ours for key, ours in other_names.items()}
    content: dict[str, Any] = {}
    for key, item in value.items():
        field = f"{name}.{key}" if name else str(key)
        our_key = known.get(_plain(key))
        if our_key is None or our_key in content:
            repairs.append(f"dropped {field}, which is {'unknown' if our_key is None else 'given twice'}")
            continue
        if key != our_key and key not in other_names:
            repairs.append(f"{field} was taken as {our_key}")
        content[our_key] = item
    return content


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
