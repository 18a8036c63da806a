"""Checks what a SAP record says against itself, the clip's duration and its transcript."""

from __future__ import annotations

import re
import unicodedata

from .record import SAYS_NOTHING, SapRecord

# Most letters that a mouth can say in a second, by script; generous, since what is caught is a text of another clip.
_DEFAULT_RATE = 25.0
_RATES = {"CJK": 10.0, "HIRAGANA": 14.0, "KATAKANA": 14.0, "HANGUL": 12.0}
_HEAD_START = 8  # letters: rates say nothing of a clip of half a second
_FEWEST_PER_SECOND = 0.4
_LONG_SECONDS = 8.0  # shorter clips may be one word with silence around it
_LONGEST_CLASS_WORDS = 8
_NOTE = re.compile(r"[\[(<{*♪][^\])>}*♪]*[\])>}*♪]")


def validate_sap(
    record: SapRecord, *, duration_seconds: float | None = None, transcript: str | None = None, complete: bool = True
) -> list[str]:
    """Says what speaks against a record (the checks of the paper's §2.2: ontology, logic, content against duration).

    Args:
        record: a parsed record, so that its closed fields hold values of their sets.
        duration_seconds: length of the clip, to check that the words fit into it; None: not checked.
        transcript: what is known to be said: equal in letters and digits; "" for no speech; None: not known.
        complete: the record comes from someone who heard the clip, so that speech has a voice and sounds have a
            summary. False for records of known facts alone.

    Returns:
        Problems, each with its field; none if the record holds.
    """
    problems = _ontology(record) + _logic(record, complete)
    if duration_seconds is not None:
        problems += _pace(record, duration_seconds)
    if transcript is not None and letters(transcript) != letters(record.linguistic_content or ""):
        said = record.linguistic_content
        problems.append(f"linguistic_content is {_short(said)}, but the transcript is {_short(transcript)}")
    return problems


def letters(text: str) -> str:
    """What counts in comparing transcripts: letters and digits, without case."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if unicodedata.category(character)[0] in "LMN")


def _ontology(record: SapRecord) -> list[str]:
    problems = []
    if _is_placeholder(record.auditory_scenes.summary):
        problems.append(f"auditory_scenes.summary is {record.auditory_scenes.summary!r}: say what is heard, or null")
    seen = set()
    for index, event in enumerate(record.auditory_scenes.events):
        name = f"auditory_scenes.events[{index}]"
        if _is_placeholder(event.label):
            problems.append(f"{name}.class is {event.label!r}: name the sound")
        elif len(event.label.split()) > _LONGEST_CLASS_WORDS:
            problems.append(f"{name}.class is {_short(event.label)}: name the sound in a few words")
        if _is_placeholder(event.attributes):
            problems.append(f"{name}.attributes is {event.attributes!r}: describe the sound, or null")
        key = (event.label.casefold(), event.type, event.attributes)
        if key in seen:
            problems.append(f"{name} is given twice: {event.label!r}")
        seen.add(key)
    return problems


def _logic(record: SapRecord, complete: bool) -> list[str]:
    problems = []
    words, voice, scene = record.linguistic_content, record.vocal_attributes, record.auditory_scenes
    if words is None and voice is not None:
        named = ", ".join(voice.given)
        problems.append(f"vocal_attributes has {named}, but linguistic_content is null: no voice without words")
    if words is not None and voice is None and complete:
        problems.append("vocal_attributes is null, but linguistic_content has words: say whose voice it is")
    if words is not None and not letters(_NOTE.sub("", words)):
        problems.append(f"linguistic_content is {_short(words)}: give words spoken, or null")
    if complete and scene.events and scene.summary is None:
        problems.append("auditory_scenes.summary is null, but there are events: say what is heard")
    if words is None and scene.summary is None and not scene.events:
        problems.append("the record says nothing: neither words nor sounds")
    return problems


def _pace(record: SapRecord, duration_seconds: float) -> list[str]:
    if not duration_seconds > 0:
        return [f"duration_seconds={duration_seconds}: a recording takes some time"]
    if record.linguistic_content is None:
        return []
    spoken = letters(_NOTE.sub("", record.linguistic_content))
    seconds_needed = sum(1 / _rate(character) for character in spoken) - _HEAD_START / _DEFAULT_RATE
    amount = f"{len(spoken)} letters in {duration_seconds:.1f} s"
    if seconds_needed > duration_seconds:
        return [f"linguistic_content is too long for the clip: {amount}"]
    alone = not record.auditory_scenes.events
    if alone and duration_seconds > _LONG_SECONDS and len(spoken) < _FEWEST_PER_SECOND * duration_seconds:
        return [f"linguistic_content is too short for a clip with nothing else in it: {amount}"]
    return []


def _rate(character: str) -> float:
    """Letters per second of a character's script."""
    if unicodedata.category(character) == "Mn":
        return float("inf")  # an accent of the letter before it
    return _RATES.get(unicodedata.name(character, "").split(" ")[0].split("-")[0], _DEFAULT_RATE)


def _is_placeholder(text: str | None) -> bool:
    return text is not None and text.strip(" .-_<>[]").casefold() in SAYS_NOTHING


def _short(text: str | None) -> str:
    if text is None:
        return "null"
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
