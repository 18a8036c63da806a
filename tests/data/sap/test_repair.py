"""Repair finds what was meant in a model's answer, makes nothing up, and says what it did."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SAYS_NOTHING, SapRecord, render_sap
from audiollm.data.sap.repair import repair_sap
from audiollm.data.sap.validation import validate_sap

from .test_sap import FULL, RECORDS


def texts(value) -> set[str]:
    """All texts inside a value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return {text for item in inner for text in texts(item)}


@given(RECORDS, st.sampled_from(["compact", "json"]))
def test_a_good_answer_needs_no_repair(record, style):
    assume(not any(text.casefold() in SAYS_NOTHING for text in texts(record.to_dict())))
    assert repair_sap(render_sap(record, style)) == (record, [])


@given(RECORDS, st.data())
def test_an_answer_cut_anywhere_gives_part_of_the_record_and_nothing_else(record, data):
    text = render_sap(record, "json")
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    repaired, repairs = repair_sap(cut)
    assert repairs
    if repaired is not None:
        assert texts(repaired.to_dict()) <= texts(record.to_dict())
        assert parse_sap(render_sap(repaired)) == repaired


@given(st.text(alphabet="{}[]\"':,\\/ \nabnul1-“”", max_size=40) | st.text(max_size=40))
def test_any_text_at_all_is_read_or_refused(text):
    for answer in (text, '{"linguistic_content": ' + text, '{"linguistic_content": "' + text + '"}'):
        record, repairs = repair_sap(answer)
        assert record is not None or repairs[-1].startswith("cannot be read")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: f"Here is the record:\n```json\n{text}\n```\nAnything else?", "left out text around the object"),
        (lambda text: f"Sure {{as asked}}: {text}", "left out text around the object"),
        (lambda text: f"<think>Maybe {{'a': 1}}?</think>\n{text}", "left out text around the object"),
        (lambda text: f"```json\n{text}", "took it out of its fence"),
        (lambda text: f"[{text}]", "took the record out of what it was wrapped in"),
        (lambda text: f'{{"SAP": {text}}}', "took the record out of what it was wrapped in"),
        (lambda text: text.replace("}", ",}").replace("]", ", ]"), "repaired its JSON"),
        (lambda text: re.sub(r'(?<!\\)"', "'", text).replace("null", "None"), "repaired its JSON"),
        (lambda text: re.sub(r'"(\w+)": ', r"\1: ", text), "repaired its JSON"),
        (lambda text: text.replace("}}", "").rstrip("}"), "repaired its JSON"),
        (lambda text: text.replace("]", ""), "repaired its JSON"),
        (lambda text: text.replace('", "', '"\n"'), "repaired its JSON"),
        (lambda text: text.replace(', "auditory', ', // the sounds\n "auditory'), "repaired its JSON"),
        (lambda text: text.replace('\\"', '"'), "repaired its JSON"),
        (lambda text: text.replace("dog barks and", "dog barks\nand"), "repaired its JSON"),
        (lambda text: text.replace("linguistic_content", "Linguistic Content"), "was taken as linguistic_content"),
        (lambda text: text.replace("persistent", "Continuous"), "type was 'Continuous': persistent"),
        (lambda text: text.replace('"distant"', '["distant"]'), "was a list: joined"),
        (lambda text: text.replace("null", '"unknown"'), "prosody was 'unknown': null"),
        (lambda text: text.replace('"adult"', "34"), None),
        (lambda text: text.replace('{"linguistic', '{"confidence": 0.9, "linguistic'), "dropped confidence"),
    ],
)
def test_what_models_get_wrong_is_understood_and_said(damage, said):
    damaged = damage(render_sap(FULL, "json"))
    record, repairs = repair_sap(damaged)
    assert record is not None, repairs
    whitespace = {ord("\n"): " "}
    assert render_sap(record).replace("\\n", " ") == render_sap(FULL).translate(whitespace)
    assert (said is None and not repairs) or any(str(said) in repair for repair in repairs), repairs


def test_what_is_in_no_closed_set_becomes_null_and_is_named():
    answer = {"linguistic_content": "a", "vocal_attributes": {"emotion": "bored", "gender": "robot", "age": "adult"}}
    record, repairs = repair_sap(answer)
    assert record.vocal_attributes.given == {"age": "adult"}
    assert any("emotion was 'bored'" in repair for repair in repairs)
    assert any("gender was 'robot'" in repair for repair in repairs)
    assert repair_sap(answer, unknown_emotion="neutral")[0].vocal_attributes.emotion == "neutral"
    with pytest.raises(ValueError, match="emotion='fine'"):
        repair_sap(answer, unknown_emotion="fine")


def test_events_without_class_or_type_are_dropped_not_guessed():
    scene = {"events": [{"class": "dog"}, {"type": "transient"}, "rain", {"class": "rain", "type": "ambient"}]}
    record, repairs = repair_sap({"linguistic_content": None, "auditory_scenes": scene})
    assert [event.to_dict() for event in record.auditory_scenes.events] == [
        {"class": "rain", "type": "persistent", "attributes": None}
    ]
    assert sum("dropped auditory_scenes.events" in repair for repair in repairs) == 3


def test_a_transcript_that_breaks_off_is_no_transcript():
    record, repairs = repair_sap('{"linguistic_content": "Please enter your pass')
    assert record is None
    assert "dropped linguistic_content, which breaks off" in repairs
    record, repairs = repair_sap(
        '{"vocal_attributes": {"gender": "female"}, "linguistic_content": "Please enter your pass'
    )
    assert record.linguistic_content is None
    assert "linguistic_content was missing: null" in repairs
    assert validate_sap(record)


@pytest.mark.parametrize(
    "answer", ["", "I cannot listen to audio.", "{}", "[1, 2]", '{"a": 1}', '{"a" 1}', '{"a": 1 2}', "{" * 500, "null"]
)
def test_what_holds_no_record_is_refused_with_a_reason(answer):
    record, repairs = repair_sap(answer)
    assert record is None
    assert repairs[-1].startswith("cannot be read: ")


def test_half_a_character_never_reaches_a_file():
    record, repairs = repair_sap('{"linguistic_content": "a", "auditory_scenes": {"summary": "rain \\ud83c"}}')
    assert record == SapRecord(linguistic_content="a")
    assert "surrogate" in repairs[-1]
    whole, repairs = repair_sap("{'linguistic_content': 'rain \\ud83c\\udf27'}")
    assert whole.linguistic_content == "rain 🌧"


@pytest.mark.parametrize("ending", ["}", ",}", ""])
def test_a_key_that_is_given_twice_is_no_record(ending):
    """Whether the JSON is whole or not: which of the two values is meant cannot be told."""
    record, repairs = repair_sap('{"linguistic_content": "a", "linguistic_content": "b"' + ending)
    assert record is None
    assert repairs[-1] == "cannot be read: 'linguistic_content' is given twice"


def test_numbers_survive_and_of_two_objects_the_first_is_read():
    answer = '{"linguistic_content": null, "vocal_attributes": {"age": 34,}} or {"linguistic_content": "b"}'
    record, repairs = repair_sap(answer)
    assert record.vocal_attributes.given == {"age": "adult"}
    assert record.linguistic_content is None
    assert "repaired its JSON" in repairs
