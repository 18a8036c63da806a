"""Validation: records that hold pass, and each thing that speaks against one is found and named."""

from __future__ import annotations

import dataclasses

import pytest

from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.data.sap.record import AuditoryScene, SapRecord, SoundEvent
from audiollm.data.sap.validation import validate_sap
from audiollm.data.voices.attributes import VocalAttributes

from .test_sap import FULL

ADULT = VocalAttributes(age="adult")
RAIN = SoundEvent(label="rain", type="persistent", attributes="soft")
RAINY = AuditoryScene(summary="It rains.", events=(RAIN,))


def raining(**changes) -> SoundEvent:
    return dataclasses.replace(RAIN, **changes)


def heard(*events: SoundEvent) -> SapRecord:
    return SapRecord(auditory_scenes=AuditoryScene(summary="It rains.", events=events))


def spoken(text: str, **others) -> SapRecord:
    return SapRecord(linguistic_content=text, vocal_attributes=ADULT, **others)


def test_records_that_hold_have_no_problems():
    assert validate_sap(FULL, duration_seconds=2.0, transcript='say "Hello" zoë') == []
    assert validate_sap(SapRecord(auditory_scenes=RAINY), duration_seconds=0.2, transcript="") == []


def test_the_recordings_of_the_sample_pass():
    clips = [clip for clip in load_sample_corpus() if clip.text]
    for clip in clips:
        assert validate_sap(spoken(clip.text), duration_seconds=clip.duration_seconds, transcript=clip.text) == []
    assert len({clip.language for clip in clips}) == 5


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (SapRecord(), "the record says nothing"),
        (SapRecord(vocal_attributes=ADULT, auditory_scenes=RAINY), "vocal_attributes has age, but linguistic_content"),
        (SapRecord(linguistic_content="Yes."), "vocal_attributes is null, but linguistic_content has words"),
        (spoken("[laughter] …"), "linguistic_content is '[laughter] …'"),
        (spoken("♪ ♪"), "linguistic_content is '♪ ♪'"),
        (SapRecord(auditory_scenes=AuditoryScene(events=(RAIN,))), "auditory_scenes.summary is null, but"),
        (SapRecord(auditory_scenes=AuditoryScene(summary="N/A.")), "auditory_scenes.summary is 'N/A.'"),
        (
            SapRecord(
                auditory_scenes=dataclasses.replace(RAINY, events=(RAIN, dataclasses.replace(RAIN, label="Rain")))
            ),
            "auditory_scenes.events[1] is given twice",
        ),
        (heard(RAIN, raining(label="Rain")), "auditory_scenes.events[1] is given twice"),
        (heard(raining(label="unknown")), "auditory_scenes.events[0].class is 'unknown'"),
        (heard(raining(label="rain that falls on a roof of tin at night")), "auditory_scenes.events[0].class is 'rain"),
        (heard(raining(attributes="none")), "auditory_scenes.events[0].attributes is 'none'"),
    ],
)
def test_what_speaks_against_a_record_is_named(record, problem):
    (found,) = validate_sap(record)
    assert found.startswith(problem)


def test_known_facts_alone_need_neither_voice_nor_summary():
    assert validate_sap(SapRecord(linguistic_content="Yes."), complete=False) == []
    assert validate_sap(SapRecord(auditory_scenes=AuditoryScene(events=(RAIN,))), complete=False) == []
    assert validate_sap(SapRecord(vocal_attributes=ADULT, auditory_scenes=RAINY), complete=False)


@pytest.mark.parametrize(
    ("text", "most_seconds_too_short", "least_seconds_enough"),
    [
        ("Please enter your password, followed by the pound key.", 1.2, 2.0),
        ("Пожалуйста, введите пароль и нажмите решётку.", 1.0, 2.0),
        ("请输入您的密码，然后按井号键确认。", 0.9, 2.0),
        ("パスワードを入力してください。", 0.5, 1.5),
        ("비밀번호를 입력하고 우물정자를 누르세요.", 0.9, 2.0),
        ("कृपया अपना पासवर्ड दर्ज करें।", 0.3, 1.5),
    ],
)
def test_words_must_fit_into_the_clip_in_every_script(text, most_seconds_too_short, least_seconds_enough):
    (problem,) = validate_sap(spoken(text), duration_seconds=most_seconds_too_short)
    assert "too long for the clip" in problem
    assert validate_sap(spoken(text), duration_seconds=least_seconds_enough) == []


def test_a_few_words_do_not_fill_a_long_clip_unless_something_else_is_heard():
    (problem,) = validate_sap(spoken("No."), duration_seconds=20.0)
    assert "too short" in problem
    assert validate_sap(spoken("No.", auditory_scenes=RAINY), duration_seconds=20.0) == []
    assert validate_sap(spoken("No."), duration_seconds=3.0) == []


def test_the_transcript_must_be_the_one_that_is_known():
    record = spoken("Straße, café: 3 o'clock")
    assert validate_sap(record, transcript="STRASSE CAFÉ 3 OCLOCK!") == []
    (problem,) = validate_sap(record, transcript="Straße, café: 4 o'clock")
    assert problem.startswith('linguistic_content is "Straße, café: 3 o\'clock", but the transcript is')
    assert validate_sap(record, transcript="")
    (problem,) = validate_sap(SapRecord(auditory_scenes=RAINY), transcript="Hello")
    assert problem == "linguistic_content is null, but the transcript is 'Hello'"


def test_vowels_that_are_written_as_marks_count_in_comparing():
    assert validate_sap(spoken("किताब"), transcript="कताब")
    assert validate_sap(spoken("café"), transcript="cafe")
    assert validate_sap(spoken("cafe\u0301"), transcript="café") == []


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_recording_takes_some_time(seconds):
    (problem,) = validate_sap(FULL, duration_seconds=seconds)
    assert "takes some time" in problem
