"""Sentences of open vocabulary are many, different, plain and repeatable; a dictionary's examples are read as they are,
and its offensive entries left out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from audiollm.data.corpora.build import LICENCE_TEXTS, single_licences
from audiollm.data.corpora.clips import CorpusError, assign_splits
from audiollm.data.corpora.sources import synthetic
from audiollm.data.corpora.sources.open_grammar import ALTERNATIVES, SENTENCES, number_words
from audiollm.data.corpora.sources.open_sentences import EXAMPLE_SHARE, open_sentences
from audiollm.data.corpora.sources.wordnet import MAX_WORDS, MIN_WORDS, examples_in, wordnet_examples
from audiollm.data.packages import PackageError

EXAMPLES = [f"{start} {'very ' * length}old." for start in ("He is", "She was", "They are") for length in range(12)]


def texts(*arguments, **options) -> list[str]:
    return [sentence.text for sentence in open_sentences(*arguments, **options)]


def test_the_grammar_has_a_word_for_every_slot_and_a_slot_for_every_word():
    templates = [text for family in (*SENTENCES.values(), *ALTERNATIVES.values()) for text in family]
    assert {name for text in templates for name in re.findall(r"\{(\w+)\}", text)} == ALTERNATIVES.keys()
    for name, family in (*SENTENCES.items(), *ALTERNATIVES.items()):
        assert len(set(family)) == len(family), name


def test_the_grammar_alone_gives_tens_of_thousands_of_plain_sentences_of_all_lengths():
    found = texts(20_000, examples=())
    assert len(set(found)) == 20_000
    for text in found:
        assert re.fullmatch(r"[A-Z][A-Za-z',.!? ]*[.!?]", text), text
        assert MIN_WORDS <= len(text.split()) <= MAX_WORDS, text
        assert not re.search(r" {2}|\b[Aa] [aeio]", text), text
    lengths = Counter(len(text.split()) for text in found)
    assert set(lengths) == set(range(MIN_WORDS, MAX_WORDS + 1))
    assert max(lengths.values()) < 0.25 * len(found)
    assert len({word for text in found for word in re.findall(r"[a-z']+", text.lower())}) > 1800
    assert sum(text.endswith("?") for text in found) > 1500


def test_sentences_follow_from_number_and_seed_alone():
    assert texts(200, examples=EXAMPLES)[:50] == texts(50, examples=EXAMPLES)
    assert not set(texts(100, 1, examples=())) & set(texts(100, 0, examples=()))
    assert open_sentences(0, examples=()) == []
    with pytest.raises(ValueError, match="count=-1"):
        open_sentences(-1, examples=())


def test_examples_are_a_fixed_share_of_balanced_length():
    many = [f"{'ab' * (number % 90)}x{'yz' * (number // 90)} {'was ' * (number % 13)}here." for number in range(9000)]
    found = open_sentences(1000, examples=many)
    share = sum(sentence.source == "example" for sentence in found) / len(found)
    assert share == pytest.approx(EXAMPLE_SHARE, abs=0.05)
    drawn = {sentence.text for sentence in found if sentence.source == "example"}
    assert drawn <= set(many)
    lengths = Counter(len(text.split()) for text in drawn)
    assert max(lengths.values()) < 0.25 * len(drawn)


def test_what_is_to_be_left_out_is_not_drawn_and_the_rest_is_the_same():
    everything = texts(600, examples=())
    rest = texts(200, examples=(), leave_out=lambda text: "the" in text)
    assert rest == [text for text in everything if "the" not in text][:200]
    with pytest.raises(ValueError, match="there are only 0 different sentences"):
        open_sentences(2, examples=(), leave_out=lambda text: True)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"), (17, "seventeen"), (40, "forty"), (99, "ninety nine"), (100, "one hundred"),
        (305, "three hundred and five"), (1000, "one thousand"), (12_050, "twelve thousand and fifty"),
        (999_999, "nine hundred and ninety nine thousand nine hundred and ninety nine"),
    ],
)  # fmt: skip
def test_numbers_are_said_as_people_say_them(number, words):
    assert number_words(number) == words


# ------------------------------------------------------------------- examples of a dictionary


def entry(gloss: str, mark: str = "") -> str:
    return f"00001740 29 v 01 word 0 001 {mark} | a meaning of it; {gloss}  \n"


@pytest.mark.parametrize(
    ("gloss", "found"),
    [
        ('"he read the letter"; "a  long letter"', ["He read the letter.", "A long letter."]),
        ('"do you see it"', ["Do you see it?"]),
        ('"Stop it!"', ["Stop it!"]),
        ('"to err is human" - Alexander Pope', []),  # another author's words
        ('"it cost $5"; "born in 1950"; "say `yes\' now"; "one"', []),
        (f'"{"very " * 16}old"', []),
    ],
)
def test_examples_are_plain_and_of_the_dictionary_itself(gloss, found):
    assert list(examples_in([entry(gloss)])) == found


@pytest.mark.parametrize("mark", ["06717170", "06718862", "07124340"])
def test_offensive_entries_give_no_examples(mark):
    assert list(examples_in([entry('"get out of my way"', mark=f";u {mark} n 0000")])) == []
    assert list(examples_in([entry('"get out of my way"', mark="@ 06717170 n 0000")])) != []


@pytest.mark.slow
def test_the_package_gives_tens_of_thousands_of_examples():
    try:
        examples = wordnet_examples()
    except PackageError as error:
        pytest.skip(f"WordNet cannot be had here: {error}")
    assert 40_000 < len(examples) == len(set(examples))
    vocabulary = {word for text in texts(20_000, examples=examples) for word in re.findall(r"[a-z']+", text.lower())}
    assert len(vocabulary) > 12_000


# ------------------------------------------------------------------------------- who reads


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "flite_program", lambda: Path("/nowhere/flite"))


def test_each_sentence_is_read_once_and_examples_name_their_dictionary(no_packages):
    recordings = synthetic.open_recordings(60, examples=EXAMPLES)
    clips = [recording.metadata for recording in recordings]
    assert [clip.text for clip in clips] == texts(60, examples=EXAMPLES)
    assert len({clip.id for clip in clips}) == 60
    assert set(Counter(clip.speaker for clip in clips).values()) == {20}
    for clip in clips:
        is_example = clip.text in EXAMPLES
        licences = single_licences([clip.licence])
        assert ("WordNet" in clip.attribution) == is_example == (synthetic.WORDNET_LICENCE in licences)
        is_of_pico = clip.speaker.startswith("pico/")
        assert ("SVOX" in clip.attribution) == is_of_pico == ("Apache-2.0" in licences)
        assert ("Carnegie Mellon" in clip.attribution) == (not is_of_pico) == ("MIT-Festival" in licences)
        assert set(licences) <= LICENCE_TEXTS.keys()
    assert "Princeton University makes no representations".lower() in LICENCE_TEXTS[synthetic.WORDNET_LICENCE].lower()
    assert assign_splits(recordings).keys() == {clip.group for clip in clips}


def test_few_voices_can_read_all(no_packages):
    recordings = synthetic.open_recordings(10, voices=synthetic.VOICES[:1], examples=())
    assert {recording.metadata.speaker for recording in recordings} == {"flite-speech/slt"}
    with pytest.raises(ValueError, match="voices is empty"):
        synthetic.open_recordings(10, voices=(), examples=())
    with pytest.raises(ValueError, match="num_clips=0"):
        synthetic.open_recordings(0, examples=())


def test_voices_of_pico_need_no_flite(monkeypatch):
    def missing():
        raise CorpusError("flite-speech needs Linux on x86_64")

    monkeypatch.setattr(synthetic, "flite_program", missing)
    pico = [voice for voice in synthetic.CLEAR_VOICES if voice.pico_language]
    assert len(synthetic.open_recordings(4, voices=pico, examples=())) == 4
    assert len(synthetic.plain_recordings(["One."], "toys", pico)) == len(pico)
    with pytest.raises(CorpusError, match="needs Linux"):  # before anything is read
        synthetic.open_recordings(4, examples=())


def test_plain_recordings_are_every_text_in_every_voice_as_it_is(no_packages):
    recordings = synthetic.plain_recordings(["One.", "Two words."], "toys")
    assert [recording.metadata.text for recording in recordings] == ["One."] * 3 + ["Two words."] * 3
    assert len({recording.metadata.id for recording in recordings}) == 6
    for recording in recordings:
        assert recording.metadata.id.startswith("toys/")
        assert recording.load.keywords["duration_factor"] == 1.0
        own = next(voice for voice in synthetic.CLEAR_VOICES if voice.name == recording.load.args[1])
        assert recording.load.keywords["pitch_hz"] == own.pitch_hz
        assert recording.metadata.attributes == own.attributes()
