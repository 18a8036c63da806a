"""What is said of a voice can be found again in the words; wordings have ids and follow from the key alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.voices.attributes import CLOSED_VALUES, FIELDS, VocalAttributes
from audiollm.data.voices.instructions import (
    FREE_LABELS,
    FREE_PHRASES,
    MANNERS,
    PERSONS,
    SPEAK,
    SPEAK_IN_VOICE,
    describe_voice,
    speech_request,
)

WORD = st.sampled_from(
    ["Scottish", "warm", "raspy", "Irish", "European", "steady", "rolling", "rich", "thin", "clipped"]
)
FREE = st.lists(WORD, min_size=1, max_size=5).map(", ".join) | st.lists(WORD, min_size=1, max_size=3).map(" ".join)
VOICES = st.fixed_dictionaries(
    {},
    optional={name: st.sampled_from(CLOSED_VALUES[name]) if name in CLOSED_VALUES else FREE for name in FIELDS},
).map(lambda given_: VocalAttributes(**given_))
KEYS = st.none() | st.text(max_size=5)


@given(VOICES, KEYS)
def test_a_described_voice_can_be_read_back_whole(voice, key):
    if not voice.given:
        with pytest.raises(ValueError, match="no attributes"):
            describe_voice(voice, key)
        return
    words = describe_voice(voice, key)
    assert VocalAttributes.from_text(words.text) == voice
    assert describe_voice(voice, key) == words
    assert (
        len(words.ids) == len(set(words.ids)) == len(voice.given) + 1 - sum(n in voice.given for n in ("gender", "age"))
    )


def test_every_wording_is_used_and_says_its_value_and_no_other():
    used = Counter()
    for table in (PERSONS, MANNERS, FREE_PHRASES, FREE_LABELS):
        for texts in table.values():
            assert len(set(texts)) == len(texts) >= 1
    for name, values in CLOSED_VALUES.items():
        for value in values:
            for number in range(60):
                words = describe_voice(VocalAttributes(**{name: value}), str(number))
                assert VocalAttributes.from_text(words.text).given == {name: value}, words
                used.update(words.ids)
            table = PERSONS if name in ("gender", "age") else MANNERS
            wordings = f"person {value}" if table is PERSONS else f"{name} {value}"
            assert len(table[value if table is PERSONS else wordings]) >= 3
            assert {f"{wordings}/{n}" for n in range(len(table[wordings.removeprefix("person ")]))} <= used.keys()


def test_the_standard_words_are_those_a_person_would_type():
    old_man = VocalAttributes(gender="male", age="elderly", speed="slow")
    assert describe_voice(old_man).text == "an elderly man, slowly"
    assert describe_voice(old_man).ids == ("person male elderly/0", "speed slow/0")
    accent = VocalAttributes(gender="f", accent="an Irish accent", emotion="cheerful")
    assert describe_voice(accent).text == "a woman, happily, with an Irish accent"
    assert "a European accent" in describe_voice(VocalAttributes(accent="European")).text
    clause = VocalAttributes(timbre="Warm, with some breath.")
    assert describe_voice(clause).text == "someone; timbre: Warm, with some breath"


def test_free_text_loses_only_what_the_words_put_back():
    assert VocalAttributes(accent="a slight Southern accent.").accent == "slight Southern"
    assert VocalAttributes(timbre="bright; clear").timbre == "bright, clear"
    assert VocalAttributes(prosody=" rising \n tone ").prosody == "rising tone"
    assert VocalAttributes(prosody="N/A", accent="unknown", age=" ").given == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an elderly man, slowly", {"gender": "male", "age": "elderly", "speed": "slow"}),
        ("Sad little GIRL, high-pitched", {"gender": "female", "age": "child", "emotion": "sadness", "pitch": "high"}),
        ("an old lady with a Scottish accent", {"gender": "female", "age": "elderly", "accent": "Scottish"}),
        ("an Irish accent, speaking fast", {"accent": "Irish", "speed": "fast"}),
        ("a man or a woman", {}),
        ("a man, not slowly and never angry", {"gender": "male"}),
        ("a low table, a deep well, medium rare", {}),
        ("human, womanly, fastened, 5-year-old", {}),
        ("timbre: like an old man; quickly", {"timbre": "like an old man", "speed": "fast"}),
        ("", {}),
    ],
)  # fmt: skip
def test_descriptions_are_read_without_guessing(text, expected):
    assert VocalAttributes.from_text(text).given == expected


def test_values_outside_the_sets_are_refused_by_name_or_reported():
    with pytest.raises(ValueError, match=r"emotion='bored': use one of anger, .*surprise"):
        VocalAttributes(emotion="bored")
    with pytest.raises(ValueError, match="gender=3: give text"):
        VocalAttributes(gender=3)
    labels = {"gender": "Female", "age": "Child", "emotion": "bored", "accent": 5, "pitch": None, "title": "x"}
    attributes, left_out = VocalAttributes.from_record(labels)
    assert attributes == VocalAttributes(gender="female", age="child")
    assert left_out == {"emotion": "bored", "accent": "5"}


@pytest.mark.parametrize(
    ("age", "group"),
    [(4, "child"), ("23", "adult"), (59.5, "adult"), (70, "elderly"), ("Twenties", "adult"), ("seventies", "elderly")],
)
def test_years_become_age_groups(age, group):
    assert VocalAttributes.from_record({"age": age}) == (VocalAttributes(age=group), {})


@pytest.mark.parametrize("age", [15, 62, -1, float("nan"), True, "teens"])
def test_ages_between_the_groups_are_left_out(age):
    attributes, left_out = VocalAttributes.from_record({"age": age})
    assert attributes.age is None
    assert set(left_out) == {"age"}


def test_requests_end_with_the_text_and_pass_the_voice_on_as_it_is():
    message, prompt_id = speech_request(" Hello,\nworld. ")
    assert (message, prompt_id) == ("Read this text aloud.\n\nHello,\nworld.", "speak/0")
    message, prompt_id = speech_request("Hi {voice}", "as {voice} / weird", None)
    assert (message, prompt_id) == ("Read this text aloud. Voice: as {voice} / weird\n\nHi {voice}", "speak_in_voice/0")
    found = Counter(speech_request("Hi", "a man", str(n))[1] for n in range(400))
    assert len(found) == len(SPEAK_IN_VOICE) >= 5
    assert len({speech_request("Hi", None, str(n))[1] for n in range(400)}) == len(SPEAK)
    for bad in (("  ", None), ("Hi", " ")):
        with pytest.raises(ValueError, match="empty"):
            speech_request(*bad)
