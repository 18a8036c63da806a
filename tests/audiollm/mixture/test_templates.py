"""Tasks: each makes a conversation that training reads, of the fields it names, or says which one is missing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import AudioPart, Conversation, TextPart
from audiollm.data.manifest import RecordError
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.mixture.config import read_mixture
from audiollm.mixture.sources import open_sources
from audiollm.mixture.templates.base import SourceRecord, UnfillableError
from audiollm.mixture.templates.registry import TASKS

from .conftest import SAP, clip

FACTS = {
    "translation": "es regnet", "language": "English", "caption": "rain", "label": "rain", "sound_type": "speech",
    "emotion": "happy", "gender": "male", "duration_seconds": 1.0, "instruction": "say hi", "output": "hi",
    "answer_codes": [5] * 120, "answer_text": "one two three", "tune": "a waltz",
}  # fmt: skip
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.fixture
def fill(text_tokenizer):
    def fill(task: str, fields: dict[str, Any], key: str = "k", text_key: str | None = None) -> Conversation:
        record = SourceRecord(fields, "file.jsonl:byte 0", None, key, text_key, text_tokenizer)
        return parse_conversation(TASKS[task](record), where=record.where, codebook_size=64, for_training=True)

    return fill


def answer(conversation: Conversation) -> list[Any]:
    assert conversation.messages[-1].role == "assistant"
    return conversation.messages[-1].content


def text_of(conversation: Conversation) -> str:
    (part,) = answer(conversation)
    return part.text


def test_every_task_makes_a_conversation_and_keeps_who_made_the_codes(fill) -> None:
    fields = clip(3, **FACTS, audio_tokenizer="maker")
    for task in TASKS:
        given = {"messages": MESSAGES} if task == "conversation" else fields
        if task == "text":
            given = {name: FACTS[name] for name in ("instruction", "output")}
        made = fill(task, given, text_key="tune" if task in ("instrument", "music") else None)
        assert answer(made), task
        assert {part.audio_tokenizer for part in made.audio_parts} <= {"maker"}, task
        if made.audio_parts:
            assert made.audio_parts[0].audio_tokenizer == "maker", task


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("transcribe", "words 3"), ("translate", "es regnet"), ("language", "English"), ("describe", "rain"),
        ("sound", "rain"), ("kind", "speech"), ("emotion", "happiness"),
    ],
)  # fmt: skip
def test_facts_answer(fill, task: str, expected: str) -> None:
    made = fill(task, clip(3, **FACTS))
    assert text_of(made) == expected
    assert made.task == task
    assert made.audio_parts[0].codes == [3, 1, 2]


def test_a_key_of_the_text_takes_the_place_of_the_usual_one(fill) -> None:
    assert text_of(fill("describe", clip(3, **FACTS), text_key="tune")) == "a waltz"


def test_words_caption_and_voice_are_found_in_a_sap_record(fill) -> None:
    fields = {"id": "x", "codes": [1], "sap": SAP}
    assert text_of(fill("transcribe", fields)) == "it rains"
    assert text_of(fill("describe", fields)) == "rain on a roof"
    assert text_of(fill("emotion", fields)) == "sadness"
    told = VocalAttributes.from_text(text_of(fill("speaker", fields)))
    assert (told.gender, told.emotion) == ("female", "sadness")


def test_the_sap_record_is_answered_whole_and_asked_about_in_part(fill) -> None:
    assert parse_sap(text_of(fill("sap_record", clip(1)))) == parse_sap(SAP)
    questions = {fill("sap_question", clip(1), key=str(key)).metadata["field"] for key in range(40)}
    assert len(questions) > 2


def test_wordings_follow_from_the_key_and_vary(fill) -> None:
    wordings = [fill("transcribe", clip(1), key=str(key)).messages[0].content[1].text for key in range(40)]
    assert wordings == [fill("transcribe", clip(1), key=str(key)).messages[0].content[1].text for key in range(40)]
    assert len(set(wordings)) > 4


def test_speaking_asks_for_text_and_often_for_a_voice(fill) -> None:
    made = [fill("speak", clip(2, gender="male"), key=str(key)) for key in range(40)]
    assert all(answer(one)[0].codes == [2, 1, 2] for one in made)
    requests = [one.messages[0].content[0].text for one in made]
    assert all(request.endswith("\n\nwords 2") for request in requests)
    with_voice = [one for one in made if one.metadata.get("voice")]
    assert 0 < len(with_voice) < 40


@pytest.mark.parametrize("num_codes", [1, 52, 53, 104, 400])
@pytest.mark.parametrize("text", ["hi", "one two three four five six seven " * 9, "héé ☃ 🎵 " * 20])
def test_interleaved_answers_lose_nothing_and_alternate(fill, text_tokenizer, num_codes: int, text: str) -> None:
    codes = [number % 64 for number in range(num_codes)]
    made = fill("speech_to_speech_interleaved", {"codes": [1], "answer_codes": codes, "answer_text": text})
    parts = answer(made)
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    pieces = [part.codes for part in parts if isinstance(part, AudioPart)]
    assert "".join(texts) == text.strip()
    assert [code for piece in pieces for code in piece] == codes
    assert [type(part) for part in parts] == [TextPart, AudioPart] * (len(parts) // 2)
    assert all(len(piece) == 52 for piece in pieces[:-1])
    # Up to the last one, which takes what is left; a token that ends inside a character takes it whole.
    assert all(10 <= len(text_tokenizer.tokenize(piece)) <= 16 for piece in texts[:-1])


def test_speech_is_answered_by_speech(fill) -> None:
    made = fill("speech_to_speech", {"id": "x", "codes": [1, 2], "answer_codes": [3]})
    assert [part.codes for part in made.audio_parts] == [[1, 2], [3]]
    assert [message.role for message in made.messages] == ["user", "assistant"]


def test_recordings_stand_where_their_file_lies(fill, text_tokenizer, tmp_path) -> None:
    fields = {"audio": "a.wav", "text": "hi", "offset": 0.5, "duration": 1.0}
    record = SourceRecord(fields, "x", str(tmp_path), "k", None, text_tokenizer)
    (part,) = parse_conversation(TASKS["transcribe"](record)).audio_parts
    assert (part.path, part.offset, part.duration) == (str(tmp_path / "a.wav"), 0.5, 1.0)


@pytest.mark.parametrize(
    ("task", "fields", "reason"),
    [
        ("transcribe", {"codes": [1]}, "has no words spoken"),
        ("transcribe", {"text": "hi"}, "has neither codes nor audio"),
        ("transcribe", {"codes": [1], "text": " "}, "has no words spoken"),
        ("translate", {"codes": [1], "text": "hi"}, "has no translation"),
        ("sound", {"codes": [1], "label": 7}, "its label is no text"),
        ("kind", {"codes": [1], "sound_type": "noise"}, "sound_type is none of speech"),
        ("emotion", {"codes": [1]}, "has no emotion"),
        ("speaker", {"codes": [1]}, "has no vocal attributes"),
        ("sap_record", {"codes": [1]}, "has no sap"),
        ("sap_record", {"codes": [1], "sap": {"words": 1}}, "its sap cannot be read"),
        ("speak", {"codes": [1]}, "cannot be spoken: no text"),
        ("speak", {"text": "hi"}, "cannot be spoken: no audio"),
        ("speech_to_speech", {"codes": [1]}, "has neither answer_codes nor answer_audio"),
        ("speech_to_speech_interleaved", {"codes": [1], "answer_codes": [1]}, "has no answer_text"),
        ("speak_interleaved", {"audio": "a.wav", "text": "hi"}, "interleaving cuts codes"),
        ("conversation", {"codes": [1], "text": "hi"}, "is no conversation"),
        ("text", {"codes": [1], "text": "hi"}, "is no conversation that is known"),
        ("text", {"messages": [{"role": "user", "content": [{"type": "audio", "codes": [1]}]}]}, "holds audio"),
    ],
)
def test_what_a_task_lacks_is_named(fill, task: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnfillableError, match=reason):
        fill(task, fields)


def test_a_record_that_lacks_a_field_is_named_by_source_task_and_place(mixture, processor) -> None:
    file = mixture({"clips": ([clip(1), {"id": "x", "codes": [1]}], {"tasks": ["transcribe"]})})
    (source,) = open_sources(read_mixture(file), text_tokenizer=processor.tokenizer, codebook_size=64, seed=0)
    good, bad = source.sample(10)
    assert text_of(source.conversation(good)) == "words 1"
    with pytest.raises(ValueError, match=r"clips\.jsonl:byte \d+: task transcribe: has no words spoken"):
        source.conversation(bad)


def test_each_pass_asks_in_other_words_and_draws_tasks_anew(mixture, processor) -> None:
    file = mixture({"clips": ([clip(number) for number in range(40)], {"tasks": ["transcribe", "emotion"]})})
    (source,) = open_sources(read_mixture(file), text_tokenizer=processor.tokenizer, codebook_size=64, seed=0)
    places = source.sample(40)
    passes = [[source.conversation(place._replace(epoch=epoch)) for place in places] for epoch in (0, 1, 0)]
    assert passes[0] == passes[2] != passes[1]
    assert {made.task for made in passes[0]} == {"transcribe", "emotion"}
    assert json.dumps([one.id for one in passes[0]])


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"conversation"}))
def test_half_a_character_anywhere_is_a_bad_record_and_no_crash(fill, task: str) -> None:
    whole = clip(3, **FACTS) if task != "text" else {name: FACTS[name] for name in ("instruction", "output")}
    text_key = "tune" if task in ("instrument", "music") else None
    for name, value in whole.items():
        if isinstance(value, str) and name != "id":
            with suppress(ValueError):  # where the task reads it at all
                fill(task, whole | {name: f"{value} \ud83d"}, text_key=text_key)


def test_half_a_character_in_spoken_words_and_ids_is_told(fill, mixture, processor) -> None:
    with pytest.raises(UnfillableError, match="its text holds half a character"):
        fill("speak_interleaved", clip(3, text="so \ud83d"))
    config = read_mixture(mixture({"clips": ([clip(1), clip(2) | {"id": "\ud83d"}], {"tasks": ["transcribe"]})}))
    (source,) = open_sources(config, text_tokenizer=processor.tokenizer, codebook_size=64, seed=0)
    errors = []
    for place in source.sample(2):
        try:
            source.conversation(place)
        except RecordError as error:
            errors.append(error.reason)
    assert errors == ["id: holds half a character (one of a surrogate pair), which no tokenizer takes"]
