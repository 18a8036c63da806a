"""Questions whose answers a SAP record holds: asked directly, with choices, or as a claim to judge.

The last step of the labelling of UniAudio-Token (arXiv:2605.31521). Nothing is asked that the record leaves open: a
null means that nothing is known, except for words in a clip without speech.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal, get_args

from audiollm.data.sampling import draw
from audiollm.data.voices.attributes import CLOSED_VALUES

from .question_wordings import CHOICES, CLAIMS, JUDGEMENTS, NOTHING_SAID, QUESTIONS, QUESTIONS_WITH_CHOICES
from .record import EVENT_TYPES, SAP_ATTRIBUTES, SapRecord, SoundEvent
from .sounds import MUSIC, MUSIC_KINDS, sound_classes
from .validation import letters

QuestionKind = Literal["direct", "multiple_choice", "true_false"]
QUESTION_KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)
# What one answers to "what is this?": all of SOUND_TYPES but the mix, which is several of them. In an order of its
# own, not to be changed: seeded draws shuffle it, so that it decides how the choices of existing questions lie.
_TYPE_ANSWERS = ("speech", "music", "sound")
MAX_CHOICES = 4
_MAX_VALUES = 1000  # of a vocabulary, per field
_MAX_ATTRIBUTE_WORDS = 3  # longer ones are descriptions: of two, both may be right
_STOP_WORDS = frozenset(["and", "are", "for", "from", "into", "its", "the", "that", "this", "with"])

Vocabulary = Mapping[str, Sequence[str]]
"""Field → values that wrong choices and claims are drawn from; see `collect_vocabulary`."""


@dataclass(frozen=True)
class Question:
    """A question about a clip.

    Attributes:
        question: the words, without the choices.
        choices: the answers to choose from, in the order they are given; None if there are none.
        answer: the right answer; one of the choices where there are any.
        field: what of the record is asked about, a key of ``QUESTIONS``.
        kind: how it is asked.
        prompt: id of the wording, for runs to record.
    """

    question: str
    choices: tuple[str, ...] | None
    answer: str
    field: str
    kind: QuestionKind
    prompt: str

    @property
    def text(self) -> str:
        """The question with its choices, a letter before each; the answer is the text of a choice."""
        if self.choices is None:
            return self.question
        lines = [f"{chr(ord('A') + number)}. {choice}" for number, choice in enumerate(self.choices)]
        return "\n".join([self.question, *lines])


@dataclass(frozen=True)
class _Fact:
    """Something the record says, and what could be said wrongly instead."""

    field: str
    value: str
    others: Sequence[str] = ()
    """Values of which some are wrong."""
    true: tuple[str, ...] = ()
    """All values that are right, if there are more than one."""
    subject: str = ""
    direct_answer: str | None = None
    """Where it is another than the value that is claimed or chosen."""


def questions(
    record: SapRecord,
    seed: int | str,
    *,
    kinds: Sequence[QuestionKind] = QUESTION_KINDS,
    vocabulary: Vocabulary | None = None,
) -> list[Question]:
    """Asks all that a record answers, each field once in every kind.

    Wrong choices and claims come from the closed sets, from the table of sounds, and for free text from the vocabulary;
    without one, accents and the like are asked directly only. A value that may be right too ("animal" for a bird, a
    text that shares a word with the right one) is never taken as wrong. For classes that are not in the table, as
    models write them, that is judged by their words alone.

    Args:
        record: the record.
        seed: decides wordings, choices, their order and which claims are true. Let it name the clip, "7 clip-12":
            with one seed for all clips, the claims of a field would hold for all of them or for none.
        kinds: which kinds of questions.
        vocabulary: values by field.

    Returns:
        Questions in the order of the record's fields; the same for the same arguments.

    Raises:
        ValueError: if a kind is unknown.
    """
    unknown = [kind for kind in kinds if kind not in QUESTION_KINDS]
    if unknown:
        raise ValueError(f"kinds has {unknown[0]!r}; use {', '.join(QUESTION_KINDS)}")
    ask = {"direct": _direct, "multiple_choice": _multiple_choice, "true_false": _true_false}
    asked = (ask[kind](fact, f"{seed}") for fact in _facts(record, vocabulary or {}, f"{seed}") for kind in kinds)
    return [question for question in asked if question is not None]


def collect_vocabulary(records: Iterable[SapRecord]) -> dict[str, tuple[str, ...]]:
    """The values that records have, by field, to draw wrong answers from: those of the training split, say.

    Args:
        records: many; the first thousand different values of each field are kept.
    """
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for field, value in _values(record):
            known = values.setdefault(field, {})
            if len(known) < _MAX_VALUES:
                known[value] = None
    return {field: tuple(known) for field, known in values.items()}


def _values(record: SapRecord) -> Iterator[tuple[str, str]]:
    if record.linguistic_content is not None:
        yield "linguistic_content", record.linguistic_content
    if record.vocal_attributes is not None and record.vocal_attributes.accent is not None:
        yield "accent", record.vocal_attributes.accent
    if record.auditory_scenes.summary is not None:
        yield "summary", record.auditory_scenes.summary
    for event in record.auditory_scenes.events:
        yield "events", event.label
        if event.attributes is not None and len(event.attributes.split()) <= _MAX_ATTRIBUTE_WORDS:
            yield _attributes_of(event), event.attributes


def _attributes_of(event: SoundEvent) -> str:
    """Field of a vocabulary: what sounds of one class are like is compared among themselves."""
    return f"event_attributes {event.label.casefold()}"


def _facts(record: SapRecord, vocabulary: Vocabulary, key: str) -> Iterator[_Fact]:
    yield from _type_fact(record)
    if record.linguistic_content is not None:
        yield _Fact("linguistic_content", record.linguistic_content, vocabulary.get("linguistic_content", ()))
    else:
        yield _Fact("linguistic_content", NOTHING_SAID)
    given = record.vocal_attributes.given if record.vocal_attributes else {}
    others_of = {**CLOSED_VALUES, "accent": vocabulary.get("accent", ())}
    for name in SAP_ATTRIBUTES:
        if name in given:
            yield _Fact(name, given[name], others_of.get(name, ()))
    if record.auditory_scenes.summary is not None:
        yield _Fact("summary", record.auditory_scenes.summary, vocabulary.get("summary", ()))
    if record.auditory_scenes.events:
        yield from _event_facts(record.auditory_scenes.events, vocabulary, key)


def _type_fact(record: SapRecord) -> Iterator[_Fact]:
    """Speech, music or sound, where it is only one of them."""
    events = {event.label.casefold() for event in record.auditory_scenes.events}
    is_there = {"speech": record.is_speech, "music": MUSIC in events, "sound": bool(events - {MUSIC})}
    found = [name for name in _TYPE_ANSWERS if is_there[name]]
    if len(found) == 1:
        yield _Fact("sound_type", found[0], _TYPE_ANSWERS)


def _event_facts(events: Sequence[SoundEvent], vocabulary: Vocabulary, key: str) -> Iterator[_Fact]:
    """About the classes of all events, and type and attributes of one."""
    labels = tuple(dict.fromkeys(event.label for event in events))
    claimed = labels[draw("event", key, len(labels))]
    others = (*vocabulary.get("events", ()), *_table())
    yield _Fact("events", claimed, others, labels, direct_answer=", ".join(labels))
    same = [event for event in events if event.label == claimed]
    if len(same) > 1:
        return  # heard in two ways: there is no single answer about its type
    (event,) = same
    yield _Fact("event_type", event.type, EVENT_TYPES, subject=claimed)
    if event.attributes is not None:
        alike = vocabulary.get(_attributes_of(event), ())
        yield _Fact("event_attributes", event.attributes, alike, subject=claimed)


def _wrong(fact: _Fact, key: str, count: int) -> list[str]:
    """Values that cannot be right beside the true ones: as many as asked for, or all there are."""
    # Some drawn ones nearly always suffice; only then are all of a vocabulary looked at.
    drawn = [draw(f"wrong {fact.field} {number}", key, len(fact.others)) for number in range(8 * count) if fact.others]
    found: dict[str, str] = {}
    for index in (*drawn, *range(len(fact.others))):
        value = fact.others[index]
        if value.casefold() not in found and not any(
            _may_hold(fact.field, value, true) for true in fact.true or (fact.value,)
        ):
            found[value.casefold()] = value
        if len(found) == count:
            break
    return list(found.values())


def _may_hold(field: str, value: str, true: str) -> bool:
    if field == "linguistic_content":
        first, second = letters(value), letters(true)
        return first in second or second in first
    kinds, true_kinds = _table().get(value.casefold()), _table().get(true.casefold())
    if kinds and true_kinds:
        return not kinds.isdisjoint(true_kinds)
    return not _words(value).isdisjoint(_words(true))


@lru_cache(maxsize=10_000)
def _words(value: str) -> frozenset[str]:
    """The words that say what a value is; for a class of the table also those of its label and sentence."""
    sound = next((sound for sound in sound_classes().values() if sound.name == value.casefold()), None)
    text = f"{value} {sound.label} {sound.summary}" if sound else value
    words = re.findall(r"[^\W_]+", text.casefold())
    return frozenset({word for word in words if len(word) > 2 and word not in _STOP_WORDS} or words)


@cache
def _table() -> Mapping[str, frozenset[str]]:
    """Class in words → its kinds."""
    return {sound.name: sound.kinds for sound in sound_classes().values()} | {MUSIC: MUSIC_KINDS}


def _direct(fact: _Fact, key: str) -> Question:
    question, number = _drawn(QUESTIONS, fact, "direct", key)
    return Question(
        question, None, fact.direct_answer or fact.value, fact.field, "direct", f"{fact.field}/direct/{number}"
    )


def _multiple_choice(fact: _Fact, key: str) -> Question | None:
    wrong = _wrong(fact, f"choices {key}", MAX_CHOICES - 1)
    if not wrong:
        return None
    question, number = _drawn(QUESTIONS | QUESTIONS_WITH_CHOICES, fact, "multiple_choice", key)
    form = draw(f"form {fact.field}", key, len(CHOICES))
    choices = sorted([fact.value, *wrong], key=lambda choice: draw(f"order {fact.field} {choice}", key, 2**62))
    prompt = f"{fact.field}/multiple_choice/{number}.{form}"
    return Question(f"{question} {CHOICES[form]}", tuple(choices), fact.value, fact.field, "multiple_choice", prompt)


def _true_false(fact: _Fact, key: str) -> Question | None:
    wrong = _wrong(fact, f"claim {key}", 1)
    if not wrong:
        return None
    holds = draw(f"holds {fact.field}", key, 2) == 0
    value = fact.value if holds else wrong[0]
    claim, number = _drawn(CLAIMS, replace(fact, value=value), "true_false", key)
    form = draw(f"judgement {fact.field}", key, len(JUDGEMENTS))
    words, if_so, if_not = JUDGEMENTS[form]
    prompt = f"{fact.field}/true_false/{number}.{form}"
    answer = if_so if holds else if_not
    return Question(words.replace("{claim}", claim), None, answer, fact.field, "true_false", prompt)


def _drawn(wordings: Mapping[str, Sequence[str]], fact: _Fact, kind: str, key: str) -> tuple[str, int]:
    """A wording with value and subject filled in, and its number."""
    number = draw(f"{kind} {fact.field}", key, len(wordings[fact.field]))
    filled = {"value": fact.value, "subject": fact.subject}
    return re.sub(r"\{(value|subject)\}", lambda match: filled[match[1]], wordings[fact.field][number]), number
