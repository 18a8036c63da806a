"""SAP records: what is written can be read back, both spellings say the same, and every wrong field is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import (
    EVENT_TYPES,
    SAP_ATTRIBUTES,
    AuditoryScene,
    SapError,
    SapRecord,
    SoundEvent,
    render_sap,
)
from audiollm.data.voices.attributes import CLOSED_VALUES, VocalAttributes

AWKWARD = st.text(alphabet="an. ;", max_size=6) | st.sampled_from(
    [" accent", "null accent", "a x accent accent", "x. accent"]
)
TEXT = (st.text(max_size=20) | AWKWARD).filter(lambda text: bool(text.strip()))
VOICES = st.fixed_dictionaries(
    {},
    optional={name: st.sampled_from(CLOSED_VALUES[name]) if name in CLOSED_VALUES else TEXT for name in SAP_ATTRIBUTES},
).map(lambda given_: VocalAttributes(**given_))
EVENTS = st.builds(SoundEvent, label=TEXT, type=st.sampled_from(EVENT_TYPES), attributes=st.none() | TEXT)
RECORDS = st.builds(
    SapRecord,
    linguistic_content=st.none() | TEXT,
    vocal_attributes=st.none() | VOICES,
    auditory_scenes=st.builds(AuditoryScene, summary=st.none() | TEXT, events=st.lists(EVENTS, max_size=3)),
)
FULL = SapRecord(
    linguistic_content='Say "hello", Zoë.',
    vocal_attributes=VocalAttributes(age="adult", gender="female", emotion="happiness", accent="Scottish"),
    auditory_scenes=AuditoryScene(
        summary="A woman speaks while a dog barks and rain falls.",
        events=(
            SoundEvent(label="dog", type="transient", attributes="distant"),
            SoundEvent(label="rain", type="persistent"),
        ),
    ),
)


def release_spelling(record: SapRecord) -> dict:
    """As the release of UniAudio-Token writes records: transient events first."""
    voice = record.vocal_attributes.given if record.vocal_attributes else {}
    events = {
        kind: [
            {"label": event.label, "characteristic": event.attributes}
            for event in record.auditory_scenes.events
            if event.type == kind
        ]
        for kind in EVENT_TYPES
    }
    closed = ("age", "gender", "emotion")
    return {
        "transcription": record.linguistic_content,
        "paralinguistics": {
            name: voice[name].title() if name in closed and name in voice else voice.get(name)
            for name in SAP_ATTRIBUTES
        },
        "nonLinguisticEvents": {
            "description": record.auditory_scenes.summary,
            "discreteEvents": events["transient"],
            "continuousEvents": events["persistent"],
        },
    }


@given(RECORDS, st.sampled_from(["compact", "json"]))
def test_what_is_written_can_be_read_back(record, style):
    text = render_sap(record, style)
    assert "\n" not in text
    assert parse_sap(text) == record
    assert render_sap(parse_sap(text), style) == text
    assert parse_sap(record.to_dict()) == record
    assert parse_sap(f"```json\n{text}\n```") == record


@given(RECORDS)
def test_the_release_spelling_says_the_same(record):
    scene = record.auditory_scenes
    ordered = AuditoryScene(
        summary=scene.summary, events=sorted(scene.events, key=lambda event: EVENT_TYPES.index(event.type))
    )
    expected = SapRecord(
        linguistic_content=record.linguistic_content, vocal_attributes=record.vocal_attributes, auditory_scenes=ordered
    )
    assert parse_sap(json.dumps(release_spelling(record))) == expected


@given(RECORDS)
def test_the_compact_style_is_the_shorter_one_and_begins_with_the_words(record):
    compact = render_sap(record)
    assert len(compact) < len(render_sap(record, "json"))
    assert compact.startswith('{"linguistic_content":')
    content = json.loads(compact)
    assert content.pop("linguistic_content", "absent") == record.linguistic_content
    assert nothing_said(content) == []


def nothing_said(value) -> list:
    """The nulls and empty containers inside a value."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [item for item in inner if item in (None, {}, [])] + [
        found for item in inner for found in nothing_said(item)
    ]


def test_both_styles_to_the_letter():
    assert render_sap(FULL) == (
        '{"linguistic_content":"Say \\"hello\\", Zoë.",'
        '"vocal_attributes":{"age":"adult","gender":"female","emotion":"happiness","accent":"Scottish"},'
        '"auditory_scenes":{"summary":"A woman speaks while a dog barks and rain falls.","events":'
        '[{"class":"dog","type":"transient","attributes":"distant"},{"class":"rain","type":"persistent"}]}}'
    )
    assert render_sap(SapRecord(linguistic_content="Yes."), "json") == (
        '{"linguistic_content": "Yes.", "vocal_attributes": {"age": null, "gender": null, "emotion": null, '
        '"accent": null, "prosody": null, "timbre": null}, "auditory_scenes": {"summary": null, "events": []}}'
    )
    with pytest.raises(ValueError, match=r"style='yaml'.*compact, json"):
        render_sap(FULL, "yaml")


def test_closed_values_are_understood_in_other_spellings():
    voice = {"age": "Elderly", "gender": "Woman", "emotion": "angry", "accent": "null"}
    record = parse_sap({"linguistic_content": "Go.", "vocal_attributes": voice})
    assert record.vocal_attributes == VocalAttributes(age="elderly", gender="female", emotion="anger")


def test_a_voice_of_nulls_is_no_voice():
    nulls = dict.fromkeys(SAP_ATTRIBUTES)
    assert parse_sap({"linguistic_content": None, "vocal_attributes": nulls}) == SapRecord()
    assert SapRecord(vocal_attributes=VocalAttributes()).vocal_attributes is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "no JSON"),
        ('{"linguistic_content": "a"} and more', "no JSON"),
        ("[" * 100_000, r"nested too deeply|no JSON"),
        ("[]", "record is .*give an object"),
        ('{"linguistic_content": "a", "linguistic_content": "b"}', "linguistic_content is given twice"),
        ({}, "linguistic_content is missing"),
        ({"linguistic_content": 3}, "linguistic_content=3: give text or null"),
        ({"linguistic_content": " "}, "linguistic_content is empty"),
        ({"linguistic_content": "a", "transcription": "a"}, "linguistic_content twice, in two spellings"),
        ({"linguistic_content": "a", "mood": "b"}, "unknown key 'mood'"),
        ({"linguistic_content": "a", "vocal_attributes": "female"}, "vocal_attributes is 'female': give an object"),
        (
            {"linguistic_content": "a", "vocal_attributes": {"emotion": "bored", "age": "teen", "speed": "slow"}},
            r"unknown key 'speed'.*vocal_attributes\.emotion='bored': use one of .*vocal_attributes\.age='teen'",
        ),
        ({"linguistic_content": None, "auditory_scenes": {"summary": ["a"]}}, r"auditory_scenes\.summary="),
        ({"linguistic_content": None, "auditory_scenes": {"events": {}}}, r"auditory_scenes\.events=.*give a list"),
        ({"linguistic_content": None, "auditory_scenes": {"events": ["dog"]}}, r"events\[0\] is 'dog': give an object"),
        (
            {"linguistic_content": None, "auditory_scenes": {"events": [{"class": "a", "type": "short"}, {}]}},
            r"events\[0\]\.type='short': use transient or persistent; .*events\[1\]\.class is missing; .*\[1\]\.type",
        ),
        (
            {"linguistic_content": None, "auditory_scenes": {"discreteEvents": [{"label": None}]}},
            r"discreteEvents\[0\]\.class is null",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(value, message):
    with pytest.raises(SapError, match=message) as caught:
        parse_sap(value, where="train.jsonl:7")
    assert str(caught.value).startswith("train.jsonl:7: ")
    assert isinstance(caught.value, ValueError)


def test_records_refuse_what_sap_does_not_know():
    with pytest.raises(SapError, match="pitch, speed"):
        SapRecord(linguistic_content="a", vocal_attributes=VocalAttributes(speed="slow", pitch="low"))
    with pytest.raises(SapError, match="use transient or persistent"):
        SoundEvent(label="dog", type="short")
