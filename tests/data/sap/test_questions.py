"""Every answer is in the record, no wrong choice may be right too, and all of it follows from the seed."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.conversation.loading import load_conversations, validate_conversations
from audiollm.data.sap.question_records import question_records, write_question_records
from audiollm.data.sap.question_wordings import CHOICES, CLAIMS, JUDGEMENTS, QUESTIONS, QUESTIONS_WITH_CHOICES
from audiollm.data.sap.questions import MAX_CHOICES, QUESTION_KINDS, collect_vocabulary, questions
from audiollm.data.sap.record import SAP_ATTRIBUTES, AuditoryScene, SapRecord, SoundEvent
from audiollm.data.sap.sounds import sound_classes
from audiollm.data.voices.attributes import CLOSED_VALUES, VocalAttributes

from .test_sap import FULL, RECORDS

VOCABULARY = {
    "linguistic_content": ("Good morning.", "say hello, zoë", "It is late."),
    "accent": ("American", "Scottish", "Mexican", "Southern American"),
    "summary": ("A train runs.", "Birds sing."),
}
BIRD = SapRecord(
    auditory_scenes=AuditoryScene(summary="A bird calls.", events=(SoundEvent(label="bird", type="transient"),))
)


def by_kind(record: SapRecord, seed: int | str, **options) -> dict:
    return {(question.field, question.kind): question for question in questions(record, seed, **options)}


@given(RECORDS, st.integers(0, 50))
def test_answers_are_what_the_record_says(record, seed):
    asked = questions(record, seed, vocabulary=VOCABULARY)
    assert asked == questions(record, seed, vocabulary=VOCABULARY)
    said = json.dumps(record.to_dict(), ensure_ascii=False)
    for question in asked:
        if question.choices is not None:
            assert question.answer in question.choices
            assert 2 <= len({choice.casefold() for choice in question.choices}) == len(question.choices) <= MAX_CHOICES
            assert question.text.splitlines()[-1].endswith(question.choices[-1].splitlines()[-1])
        elif question.kind == "true_false":
            assert question.answer in {"True", "False", "Yes", "No"}
        elif question.field not in ("sound_type", "events") and record.is_speech:
            assert json.dumps(question.answer, ensure_ascii=False)[1:-1] in said


def test_every_field_that_says_something_is_asked_about_and_no_other():
    fields = {question.field for question in questions(FULL, 0, vocabulary=VOCABULARY)}
    given_ = {"linguistic_content", "age", "gender", "emotion", "accent", "summary", "events", "event_type"}
    assert fields - {"event_attributes"} == given_  # speech among sounds is of no single type
    assert {question.field for question in questions(SapRecord(linguistic_content="Yes."), 0)} == {
        "sound_type",
        "linguistic_content",
    }
    (question,) = questions(SapRecord(), 0)
    assert (question.field, question.answer) == ("linguistic_content", "No words are spoken.")


def test_closed_fields_are_chosen_from_their_sets():
    for seed in range(30):
        asked = by_kind(FULL, seed)
        assert set(asked["gender", "multiple_choice"].choices) == set(CLOSED_VALUES["gender"])
        assert set(asked["age", "multiple_choice"].choices) == set(CLOSED_VALUES["age"])
        assert set(asked["emotion", "multiple_choice"].choices) < set(CLOSED_VALUES["emotion"])


def test_claims_hold_as_often_as_not_and_are_judged_by_the_record():
    answers = Counter()
    for seed in range(200):
        question = by_kind(FULL, seed)["gender", "true_false"]
        holds = question.answer in ("True", "Yes")
        assert (" female" in question.question) == holds
        assert (" male" in question.question) != holds
        answers[holds] += 1
    assert min(answers.values()) > 70


def test_the_right_choice_may_stand_anywhere():
    places = Counter()
    for seed in range(300):
        question = by_kind(FULL, seed)["emotion", "multiple_choice"]
        places[question.choices.index(question.answer)] += 1
    assert places.keys() == set(range(MAX_CHOICES))
    assert min(places.values()) > 45


def test_a_class_that_may_be_right_too_is_never_a_wrong_choice():
    animal = SapRecord(auditory_scenes=AuditoryScene(events=(SoundEvent(label="animal", type="transient"),)))
    music = SapRecord(auditory_scenes=AuditoryScene(events=(SoundEvent(label="music", type="persistent"),)))
    for seed in range(100):
        assert {"animal", "farm animal"}.isdisjoint(by_kind(BIRD, seed)["events", "multiple_choice"].choices)
        assert {"bird", "horse", "cat"}.isdisjoint(by_kind(animal, seed)["events", "multiple_choice"].choices)
        chosen = by_kind(music, seed)["events", "multiple_choice"].choices
        assert {"bass drum", "percussion", "string instrument", "synthesizer bass"}.isdisjoint(chosen)
        claimed = by_kind(BIRD, seed)["events", "true_false"]
        assert claimed.answer in ("True", "Yes") or "animal" not in claimed.question


def test_classes_outside_the_table_are_told_apart_by_words():
    rain = SapRecord(auditory_scenes=AuditoryScene(events=(SoundEvent(label="Rain on a roof", type="persistent"),)))
    for seed in range(100):
        chosen = by_kind(rain, seed, vocabulary={"events": ("heavy rain", "roof tiles", "hail")})
        assert {"water", "heavy rain", "roof tiles"}.isdisjoint(chosen["events", "multiple_choice"].choices)


def test_classes_that_cannot_both_be_right_are_set_against_each_other():
    kick = SapRecord(auditory_scenes=AuditoryScene(events=(SoundEvent(label="bass drum", type="transient"),)))
    chosen = {choice for seed in range(300) for choice in by_kind(kick, seed)["events", "multiple_choice"].choices}
    assert chosen == {sound.name for sound in sound_classes().values() if "bass drum" not in sound.kinds} | {
        "bass drum"
    }


def test_of_several_events_none_is_a_wrong_choice_for_another():
    names = [sound.name for sound in sound_classes().values()]
    for first, second in pairwise(names):
        events = tuple(SoundEvent(label=name, type="transient") for name in (first, second))
        record = SapRecord(auditory_scenes=AuditoryScene(events=events))
        question = by_kind(record, first)["events", "multiple_choice"]
        assert len({first, second} & set(question.choices)) == 1
        assert by_kind(record, first)["events", "direct"].answer == f"{first}, {second}"


def test_free_text_has_choices_only_from_a_vocabulary_and_only_other_ones():
    assert ("accent", "multiple_choice") not in by_kind(FULL, 0)
    assert ("accent", "direct") in by_kind(FULL, 0)
    american = SapRecord(linguistic_content="Hello, Zoë!", vocal_attributes=VocalAttributes(accent="American"))
    for seed in range(20):
        asked = by_kind(american, seed, vocabulary=VOCABULARY)
        assert set(asked["accent", "multiple_choice"].choices) == {"American", "Scottish", "Mexican"}
        assert set(asked["linguistic_content", "multiple_choice"].choices) == {
            "Hello, Zoë!",
            "Good morning.",
            "It is late.",
        }


def test_a_sound_that_is_heard_in_two_ways_is_not_asked_for_its_type():
    events = (SoundEvent(label="rain", type="transient"), SoundEvent(label="rain", type="persistent"))
    asked = by_kind(SapRecord(auditory_scenes=AuditoryScene(events=events)), 0)
    assert ("events", "direct") in asked
    assert ("event_type", "direct") not in asked


def test_kinds_can_be_chosen_and_unknown_ones_are_refused():
    assert {question.kind for question in questions(FULL, 0, kinds=["true_false"])} == {"true_false"}
    with pytest.raises(ValueError, match=r"'essay'; use direct, multiple_choice, true_false"):
        questions(FULL, 0, kinds=["essay"])


def test_a_vocabulary_is_what_the_records_say():
    music = AuditoryScene(events=(SoundEvent(label="Music", type="persistent", attributes="calm"),))
    vocabulary = collect_vocabulary([FULL, FULL, SapRecord(auditory_scenes=music)])
    assert vocabulary == {
        "linguistic_content": (FULL.linguistic_content,),
        "accent": ("Scottish",),
        "summary": (FULL.auditory_scenes.summary,),
        "events": ("dog", "rain", "Music"),
        "event_attributes dog": ("distant",),
        "event_attributes music": ("calm",),
    }


def test_wordings_have_their_fields_and_every_question_has_some():
    assert set(QUESTIONS) == {
        "sound_type", "linguistic_content", *SAP_ATTRIBUTES, "summary", "events", "event_type", "event_attributes"
    }  # fmt: skip
    assert set(CLAIMS) == set(QUESTIONS) - {"prosody", "timbre"}
    assert all("{value}" in claim for claims in CLAIMS.values() for claim in claims)
    for field in ("event_type", "event_attributes"):
        assert all("{subject}" in words for words in (*QUESTIONS[field], *CLAIMS[field]))
    everything = [*QUESTIONS.values(), *QUESTIONS_WITH_CHOICES.values(), *CLAIMS.values(), CHOICES, JUDGEMENTS]
    assert all(len(set(wordings)) == len(wordings) >= 2 for wordings in everything)


def test_conversations_are_such_as_fine_tuning_reads(tmp_path):
    clips = [
        {"id": "a", "codes": [1, 2, 3], "sap": FULL.to_dict(), "split": "train"},
        {"id": "b", "audio": "b.wav", "sap": BIRD.to_dict(), "split": "train", "language": "en"},
        {"id": "c", "audio": "c.wav", "split": "train"},
        {"id": "d", "sap": BIRD.to_dict(), "split": "train"},
        {"id": "e", "audio": "e.wav", "sap": {"linguistic_content": 3}, "split": "train"},
        {"id": "f", "audio": "f.wav", "sap": BIRD.to_dict(), "split": "test"},
    ]
    source, output = tmp_path / "clips.jsonl", tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    report = write_question_records(source, output, split="train")
    assert validate_conversations(output, for_training=True) == []
    conversations = load_conversations(output)
    assert {conversation.id.split("/")[0] for conversation in conversations} == {"a", "b"}
    assert len({conversation.id for conversation in conversations}) == len(conversations)
    assert {conversation.metadata["kind"] for conversation in conversations} == set(QUESTION_KINDS)
    first = conversations[0]
    assert first.audio_parts[0].codes == [1, 2, 3]
    assert first.metadata["prompt"].startswith("sap/linguistic_content/direct/")
    assert json.loads(output.read_text().splitlines()[-1])["messages"][0]["content"][0]["path"] == "b.wav"
    assert sum(report.records.values()) == len(conversations)
    assert set(report.left_out.values()) == {1}
    assert any(reason.startswith("sap: linguistic_content=3") for reason in report.left_out)
    assert any(reason.startswith("no audio") for reason in report.left_out)


def test_a_clip_gives_no_more_questions_than_asked_for_and_others_with_another_seed():
    clips = [{"id": f"{number}", "codes": [1], "sap": FULL.to_dict()} for number in range(40)]
    drawn = list(question_records(clips, per_clip=3))
    assert len(drawn) == 120
    assert drawn == list(question_records(clips, per_clip=3))
    assert drawn != list(question_records(clips, per_clip=3, seed=1))
    fields = Counter((record["field"], record["kind"]) for record in drawn)
    assert len(fields) > 15
    with pytest.raises(ValueError, match="per_clip=0: use 1 or more"):
        next(question_records(clips, per_clip=0))


def test_no_file_is_written_when_nothing_can_be_asked(tmp_path):
    with pytest.raises(ValueError, match=r"nothing can be asked(.|\n)*left out: 1 \(no SAP record"):
        write_question_records([{"id": "a", "codes": [1]}], tmp_path / "questions.jsonl")
    assert list(tmp_path.iterdir()) == []
