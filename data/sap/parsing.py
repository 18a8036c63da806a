"""Reads SAP records strictly: the paper's spelling and the one of the UniAudio-Token release."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from audiollm.data.voices.attributes import VocalAttributes

from .record import EVENT_FIELDS, SAP_ATTRIBUTES, AuditoryScene, EventType, SapError, SapRecord, SoundEvent

# The release's names of the parts of a record.
RELEASE_KEYS = {
    "transcription": "linguistic_content",
    "paralinguistics": "vocal_attributes",
    "nonLinguisticEvents": "auditory_scenes",
}
RELEASE_SCENE_KEYS = {"description": "summary"}
RELEASE_EVENT_KEYS = {"label": "class", "characteristic": "attributes"}
# The release keeps the two types of events in two lists.
EVENT_LISTS: dict[str, EventType | None] = {
    "events": None,
    "discreteEvents": "transient",
    "continuousEvents": "persistent",
}
RECORD_KEYS = tuple(RELEASE_KEYS.values())

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)
_T = TypeVar("_T")


def parse_sap(value: str | Mapping[str, Any], *, where: str = "") -> SapRecord:
    """Reads a record, or says all that is wrong with it.

    Closed attributes are understood in other spellings ("Woman", "angry"). A key that is absent counts as null, except
    ``linguistic_content``, and class and type of an event. For the output of a language model, see
    `audiollm.data.sap.repair.repair_sap`.

    Args:
        value: an object or its JSON, also in a Markdown fence; in the paper's spelling or the release's
            (``transcription``, ``paralinguistics``, ``nonLinguisticEvents``).
        where: file and line for the message.

    Raises:
        SapError: naming every field that is wrong.
    """
    problems: list[str] = []
    record = _record(read_json(value, where) if isinstance(value, str) else value, problems)
    if problems:
        raise SapError(problems, where)
    assert record is not None  # or else there were problems
    return record


def unfenced(text: str) -> str:
    """Text without a Markdown fence around it."""
    match = _FENCE.fullmatch(text)
    return match[1] if match else text


def read_json(text: str, where: str = "") -> Any:
    """The value of a JSON text, also in a Markdown fence.

    Raises:
        SapError: if it is no JSON, or names a key twice.
    """
    try:
        return json.loads(unfenced(text), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise SapError([f"no JSON: {error}"], where) from error
    except RecursionError as error:
        raise SapError(["no record: brackets are nested too deeply"], where) from error
    except SapError as error:
        raise SapError(error.problems, where) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise SapError([f"{', '.join(twice)} is given twice"])
    return dict(pairs)


def _record(value: Any, problems: list[str]) -> SapRecord | None:
    content = _renamed(value, "record", RELEASE_KEYS, RECORD_KEYS, problems)
    if content is None:
        return None
    if "linguistic_content" not in content:
        problems.append("linguistic_content is missing: give the words spoken, or null")
    words = content.get("linguistic_content")
    voice = _voice(content.get("vocal_attributes"), problems)
    scene = _scene(content.get("auditory_scenes"), problems)
    build = partial(SapRecord, linguistic_content=words, vocal_attributes=voice, auditory_scenes=scene)
    return _checked(build, "", problems)


def _voice(value: Any, problems: list[str]) -> VocalAttributes | None:
    content = _renamed({} if value is None else value, "vocal_attributes", {}, SAP_ATTRIBUTES, problems) or {}
    # One by one, so that each wrong value is named.
    voices = [
        _checked(partial(VocalAttributes, **{name: said}), "vocal_attributes.", problems)
        for name, said in content.items()
    ]
    return VocalAttributes(**{name: said for voice in voices if voice for name, said in voice.given.items()})


def _scene(value: Any, problems: list[str]) -> AuditoryScene:
    allowed = ("summary", *EVENT_LISTS)
    content = _renamed({} if value is None else value, "auditory_scenes", RELEASE_SCENE_KEYS, allowed, problems) or {}
    events = []
    for name, event_type in EVENT_LISTS.items():
        listed = content.get(name)
        if listed is None:
            continue
        if not isinstance(listed, list):
            problems.append(f"auditory_scenes.{name}={listed!r}: give a list of events")
            continue
        for index, item in enumerate(listed):
            events.append(_event(item, event_type, f"auditory_scenes.{name}[{index}]", problems))
    summary = content.get("summary")
    valid_events = tuple(event for event in events if event is not None)
    scene = _checked(partial(AuditoryScene, summary=summary, events=valid_events), "auditory_scenes.", problems)
    return scene or AuditoryScene()


def _event(value: Any, event_type: EventType | None, name: str, problems: list[str]) -> SoundEvent | None:
    allowed = EVENT_FIELDS if event_type is None else tuple(key for key in EVENT_FIELDS if key != "type")
    content = _renamed(value, name, RELEASE_EVENT_KEYS, allowed, problems)
    if content is None:
        return None
    missing = [key for key in ("class", "type") if key in allowed and key not in content]
    if missing:
        problems.extend(f"{name}.{key} is missing" for key in missing)
        return None
    said: Any = {"label": content["class"], "type": content.get("type", event_type)}
    return _checked(partial(SoundEvent, **said, attributes=content.get("attributes")), f"{name}.", problems)


def _renamed(
    value: Any, name: str, other_names: Mapping[str, str], allowed: tuple[str, ...], problems: list[str]
) -> dict[str, Any] | None:
    """An object with its keys in the paper's spelling; unknown keys and those said in both spellings are problems."""
    if not isinstance(value, Mapping):
        problems.append(f"{name} is {value!r:.60}: give an object")
        return None
    content: dict[str, Any] = {}
    for key, item in value.items():
        our_key = other_names.get(key, key)
        if our_key not in allowed:
            problems.append(f"{name} has the unknown key {key!r}: use {', '.join(allowed)}")
        elif our_key in content:
            problems.append(f"{name} gives {our_key} twice, in two spellings")
        else:
            content[our_key] = item
    return content


def _checked(build: Callable[[], _T], prefix: str, problems: list[str]) -> _T | None:
    try:
        return build()
    except SapError as error:
        problems.extend(prefix + problem for problem in error.problems)
    except ValueError as error:  # of VocalAttributes
        problems.append(f"{prefix}{error}")
    return None
