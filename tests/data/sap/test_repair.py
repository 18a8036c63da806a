"""Repair finds what was meant in a model's answer, makes nothing up, and says what it did."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audiollm.data.sap.lenient_json import UnreadableError, read_lenient_json
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
        (lambda text: text.replace("}", ",}").replace("]", ", ]"), "removed a trailing comma"),
        (lambda text: re.sub(r'(?<!\\)"', "'", text).replace("null", "None"), "read other quotes as double quotes"),
        (lambda text: re.sub(r'"(\w+)": ', r"\1: ", text), "put quotes around keys"),
        (lambda text: text.replace("}}", "").rstrip("}"), "closed what broke off"),
        (lambda text: text.replace("]", ""), "added a missing ]"),
        (lambda text: text.replace('", "', '"\n"'), "added a missing comma"),
        (lambda text: text.replace(', "auditory', ', // the sounds\n "auditory'), "left out comments"),
        (lambda text: text.replace('\\"', '"'), "kept quotes inside a text"),
        (lambda text: text.replace("dog barks and", "dog barks\nand"), "kept line breaks inside a text"),
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


@pytest.mark.parametrize("ending", ["}", ",}", "", "} or so"])
@pytest.mark.parametrize("second", ['"b"', '"br', "{", "3"])
def test_a_key_that_is_given_twice_is_no_record(ending, second):
    """Whether the JSON is whole or not: which of the two values is meant cannot be told."""
    record, repairs = repair_sap('{"linguistic_content": "a", "linguistic_content": ' + second + ending)
    assert record is None
    assert repairs[-1] == "cannot be read: 'linguistic_content' is given twice"


GOOD = '{"linguistic_content": "he said \'class\': \\"type\\": x", "vocal_attributes": {"age": 34}}'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (GOOD, []),
        (f"```json\n{GOOD}\n```", []),
        (f'```json\n{GOOD}\n```\nHere "linguistic_content": is what was said.', ["left out text around the object"]),
        (f'{GOOD}\n"linguistic_content": is what was said.', ["left out text around the object"]),
        (f"{GOOD}\n{GOOD}", ["left out text around the object"]),
        (f"{GOOD} or {GOOD.replace('34', '8')}", ["left out text around the object"]),
        (f'<think>{{"a": 1, "a": 2}}</think>{GOOD}', ["left out text around the object"]),
        (f"```\n{GOOD}", ["took it out of its fence"]),
        (f"```json\n{GOOD[:-1]}\n```", ["closed what broke off"]),
        (f"```json\n{GOOD[:-1]}\n", ["took it out of its fence", "closed what broke off"]),
        (f"{GOOD[:-1]},}} bye", ["left out text around the object", "removed a trailing comma"]),
    ],
)
def test_a_key_counts_only_inside_its_object_and_what_was_done_is_said(answer, said):
    record, repairs = repair_sap(answer)
    assert record is not None, repairs
    assert record.linguistic_content == """he said 'class': "type": x"""
    assert record.vocal_attributes.given == {"age": "adult"}
    assert repairs == said


@pytest.mark.parametrize("cut", ['"age": 3', '"age": 34', '"age": 1.', '"age": nul', '"age": null', '"age": -'])
def test_a_number_that_touches_the_end_may_be_half_of_one(cut):
    record, repairs = repair_sap('{"linguistic_content": "a", "vocal_attributes": {' + cut)
    assert record == SapRecord(linguistic_content="a")
    assert "dropped age, which breaks off" in repairs


@pytest.mark.parametrize(
    "value", ["hello there", "Male", "NaN", "Infinity", "-Infinity", "12.", "34 years", "01", "{a b}", "[hello]", "tru"]
)
@pytest.mark.parametrize("answer", ['{"linguistic_content": VALUE}', 'so {"age": 1, "linguistic_content": VALUE,}'])
def test_bare_words_are_never_taken_for_a_text(answer, value):
    record, repairs = repair_sap(answer.replace("VALUE", value))
    assert record is None
    assert repairs[-1].startswith("cannot be read: ")


def test_two_texts_without_a_colon_are_refused():
    record, repairs = repair_sap('{"linguistic_content" "hello"}')
    assert record is None
    assert repairs[-1].startswith("cannot be read: there is no colon after 'linguistic_content")


def test_numbers_and_nested_values_survive_lenient_reading():
    value = {"a": [1, 2.5, -3e2, True, None, "x\ty"], "b": {"c": []}}
    text = json.dumps(value)
    assert read_lenient_json(text) == (value, [])
    assert read_lenient_json("so " + text) == (value, ["left out text around the object"])
    assert read_lenient_json(text[:-1] + ",}") == (value, ["removed a trailing comma"])
    with pytest.raises(UnreadableError, match="given twice"):
        read_lenient_json('x {"a": 1, "a": 2}')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_a_cut_at_any_place_leaves_only_values_that_were_there(value):
    text = json.dumps(value)
    for end in range(1, len(text)):
        found, repairs = read_lenient_json(text[:end])
        assert repairs
        assert is_part(found, value), (text[:end], found)


def is_part(found, whole) -> bool:
    """Whether something is what is left of a whole when its end is cut off."""
    if isinstance(found, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(item, whole[key]) for key, item in found.items())
    if isinstance(found, list) and isinstance(whole, list):
        return len(found) <= len(whole) and all(map(is_part, found, whole))
    return type(found) is type(whole) and found == whole


def test_of_two_objects_the_first_is_read():
    answer = '{"linguistic_content": null, "vocal_attributes": {"age": 34,}} or {"linguistic_content": "b"}'
    record, repairs = repair_sap(answer)
    assert record.vocal_attributes.given == {"age": "adult"}
    assert record.linguistic_content is None
    assert repairs == ["left out text around the object", "removed a trailing comma"]


@pytest.mark.parametrize("written", [r"\x41", r"\alpha and \lambda", r"C:\Users", r"\u12", r"100\%", "\\\u2028"])
def test_a_backslash_that_escapes_nothing_is_kept_with_what_follows(written):
    record, repairs = repair_sap('{"linguistic_content": "say TEXT here"}'.replace("TEXT", written))
    assert record.linguistic_content == f"say {written} here"
    assert repairs == ["kept a backslash that escapes nothing"]


@pytest.mark.parametrize("quote", list("'’”“‘„«»"))
def test_a_backslash_before_a_quote_is_left_out_with_a_note(quote):
    record, repairs = repair_sap('{"linguistic_content": "it\\' + quote + 's"}')
    assert record.linguistic_content == f"it{quote}s"
    assert repairs == ["left out a backslash before a quote"]


# Where a text ends with the wrong mark: TEXT is one text with its marks.
ODD_PLACES = [
    '{"linguistic_content": TEXT}',
    '{"linguistic_content": TEXT\n}',
    '{"linguistic_content": TEXT, "vocal_attributes": {"gender": null}}',
    '{"linguistic_content": TEXT,\n "auditory_scenes": {"summary": null, "events": []}}',
    "Here it is:\n```json\n{'linguistic_content': TEXT}\n```",
    '{"auditory_scenes": {"events": []}, "linguistic_content": TEXT, "vocal_attributes": {"gender": "fema',
]


@pytest.mark.parametrize("place", ODD_PLACES)
@pytest.mark.parametrize("closing", list("”’“‘„«»'"))
@pytest.mark.parametrize("said", ["hello there", "it’s the dogs’ food", "say “hi”, “bye” now", "“all of it”, she said"])
def test_a_text_with_an_odd_closing_quote_is_whole_and_the_quote_is_noted(place, closing, said):
    record, repairs = repair_sap(place.replace("TEXT", f'"{said}{closing}'))
    assert record.linguistic_content == said, repairs
    assert "read other quotes as double quotes" in repairs
    assert not any("linguistic_content" in repair for repair in repairs)


@pytest.mark.parametrize("opening", list("\"'“‘„‚«»‹"))
def test_quotes_of_one_kind_are_understood_for_keys_and_values(opening):
    closing = {"“": "”", "‘": "’", "„": "“", "‚": "‘", "«": "»", "»": "«", "‹": "›"}.get(opening, opening)
    answer = '{"linguistic_content": "hello", "vocal_attributes": {"gender": "male"}}'
    quoted = re.sub(r'"(.*?)"', rf"{opening}\1{closing}", answer)
    assert repair_sap(quoted)[0] == repair_sap(answer)[0]


def test_a_text_without_any_end_is_still_dropped():
    for text in ('"hello ”', '"hello', '"say “hi” and', '"it’s'):
        record, repairs = repair_sap('{"vocal_attributes": {"age": 34}, "linguistic_content": ' + text)
        assert record.linguistic_content is None
        assert "dropped linguistic_content, which breaks off" in repairs


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [("female", "male", None), ("female", "Female", "female"), ("female", None, "female"), (None, "male", "male")],
)
def test_of_two_spellings_of_a_field_nothing_is_taken_unless_they_agree(one, other, kept):
    answer = {"linguistic_content": "a", "vocal_attributes": {"Gender": one, "gender": other, "age": "adult"}}
    for asked in (answer, json.dumps(answer)):
        record, repairs = repair_sap(asked)
        assert record.vocal_attributes.given.get("gender") == kept
        assert any("gender" in repair and "given twice" in repair for repair in repairs)
        if kept is None:
            assert "vocal_attributes.gender is given twice with different values, 'female' and 'male': null" in repairs


def test_a_third_spelling_settles_nothing():
    record, repairs = repair_sap({"linguistic_content": "a", "Linguistic Content": "b", "transcription": "a"})
    assert record.linguistic_content is None
    assert sum("given twice" in repair for repair in repairs) == 2


@pytest.mark.parametrize(
    "answer",
    [
        "{0}{1}", "{0}\n\n{1}", "{0} or {1}", "{0},{1}", "```json\n{0}\n```\n```json\n{1}\n```",
        "1. {0}\n2. {1}", "```json\n{0}\n{1}\n```",
    ],
)  # fmt: skip
def test_of_several_answers_the_first_is_read_with_a_note(answer):
    record, repairs = repair_sap(answer.replace("{0}", GOOD).replace("{1}", GOOD.replace("34", "8")))
    assert record.vocal_attributes.given == {"age": "adult"}
    assert "left out text around the object" in repairs
