"""Tasks about a clip: a user gives a recording and asks, and a text answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audiollm.data.prompts import TASK_ANSWERS
from audiollm.data.records import SOUND_TYPES
from audiollm.data.sampling import choose, draw
from audiollm.data.sap.question_records import question_conversation
from audiollm.data.sap.questions import questions
from audiollm.data.sap.record import render_sap
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.data.voices.clips import labelled_attributes
from audiollm.data.voices.instructions import describe_voice
from audiollm.prompts import choose_prompt

from .base import SourceRecord, UnfillableError

# Wordings are only ever appended: their numbers are their ids.
SAP_REQUESTS = (
    "Describe the recording as a SAP record in JSON.",
    "What is said, by whom and how, and what else is heard? Answer with a SAP record in JSON.",
    "Write the SAP record of this audio.",
    "Give words, voice and sounds of the recording as JSON: linguistic_content, vocal_attributes, auditory_scenes.",
)


def asked_about(task: str) -> Callable[[SourceRecord], dict[str, Any]]:
    """The template of a task of `audiollm.prompts.INSTRUCTIONS` that a text answers."""

    def template(record: SourceRecord) -> dict[str, Any]:
        answer = record.text(record.text_key) if record.text_key is not None else _ANSWERS[task](record)
        wording = choose_prompt(task, record.key)
        return record.conversation(task, [record.audio(), wording.text], [answer], prompt=wording.id)

    return template


def sap_record(record: SourceRecord) -> dict[str, Any]:
    """All that is known of a clip, as JSON."""
    wording = choose("sap_record", SAP_REQUESTS, record.key)
    answer = render_sap(record.sap())
    return record.conversation("sap_record", [record.audio(), wording.text], [answer], prompt=wording.id)


def sap_question(record: SourceRecord) -> dict[str, Any]:
    """One of the questions that the SAP record answers."""
    asked = questions(record.sap(), record.key)
    if not asked:
        raise UnfillableError("its sap answers no question")
    question = asked[draw("ask", record.key, len(asked))]
    made = question_conversation(question, record.audio(), record.id)
    made_by = record.fields.get("audio_tokenizer")
    return made if made_by is None else made | {"audio_tokenizer": made_by}


def attributes_of(record: SourceRecord) -> VocalAttributes:
    """The voice of a clip, as labelled."""
    return VocalAttributes.from_record(labelled_attributes(record.fields))[0]


def _emotion(record: SourceRecord) -> str:
    if (emotion := attributes_of(record).emotion) is None:
        raise UnfillableError("has no emotion")
    return emotion


def _voice(record: SourceRecord) -> str:
    attributes = attributes_of(record)
    if not attributes.given:
        raise UnfillableError("has no vocal attributes")
    return describe_voice(attributes, record.key).text


def _kind(record: SourceRecord) -> str:
    kind = record.text("sound_type")
    if kind not in SOUND_TYPES:
        raise UnfillableError(f"its sound_type is none of {', '.join(SOUND_TYPES)}")
    return kind


def _caption(record: SourceRecord) -> str:
    if record.fields.get("caption") is not None or record.fields.get("sap") is None:
        return record.text("caption")
    if (summary := record.sap().auditory_scenes.summary) is None:
        raise UnfillableError("has no caption, and its sap no summary")
    return summary


_ANSWERS: dict[str, Callable[[SourceRecord], str]] = {
    **{task: lambda record, fact=fact: record.text(fact) for task, fact in TASK_ANSWERS.items()},  # type: ignore[misc]
    "transcribe": SourceRecord.words,
    "describe": _caption,
    "emotion": _emotion,
    "speaker": _voice,
    "kind": _kind,
}
TASKS_WITH_USUAL_ANSWER = frozenset(_ANSWERS)
"""Others need the key of their answer."""
