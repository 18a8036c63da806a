"""Sentences of the grammar are many and repeatable; who reads them how follows from them; splits are by sentence."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import pytest
import torch

from audiollm.data.corpora.build import CORPORA, build_corpus
from audiollm.data.corpora.clips import CorpusError, assign_splits, load_manifest
from audiollm.data.corpora.sources import synthetic
from audiollm.data.corpora.sources.sentences import ALTERNATIVES, SENTENCES, grammar_sentences
from audiollm.data.packages import PackageError
from audiollm.data.voices.attributes import VocalAttributes


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "flite_program", lambda: Path("/nowhere/flite"))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_the_grammar_has_a_word_for_every_slot_and_a_slot_for_every_word():
    templates = [text for family in (*SENTENCES.values(), *ALTERNATIVES.values()) for text in family]
    assert {name for text in templates for name in re.findall(r"\{(\w+)\}", text)} == ALTERNATIVES.keys()
    for family in (*SENTENCES.values(), *ALTERNATIVES.values()):
        assert len(set(family)) == len(family)


def test_sentences_are_different_plain_and_of_a_small_vocabulary():
    sentences = grammar_sentences(2000)
    assert len(set(sentences)) == 2000
    for sentence in sentences:
        assert re.fullmatch(r"[A-Z][A-Za-z',?. ]+[.?]", sentence), sentence
        assert "  " not in sentence
        assert 2 <= len(words(sentence)) <= 20
    vocabulary = Counter(word for sentence in sentences for word in words(sentence))
    assert 600 <= len(vocabulary) <= 800
    assert sum(sentence.endswith("?") for sentence in sentences) > 40


def test_sentences_follow_from_number_and_seed_alone():
    assert grammar_sentences(300)[:100] == grammar_sentences(100)
    assert not set(grammar_sentences(100, seed=1)) >= set(grammar_sentences(100))
    assert grammar_sentences(0) == []
    with pytest.raises(ValueError, match="count=-1"):
        grammar_sentences(-1)


def test_every_voice_reads_as_much_and_no_sentence_is_in_two_splits(no_packages):
    recordings = synthetic.recordings(1200)
    assert len(recordings) == 1200
    counts = Counter(item.metadata.speaker for item in recordings)
    assert set(counts) == {f"flite-speech/{voice.name}" for voice in synthetic.VOICES}
    assert max(counts.values()) - min(counts.values()) <= 6
    splits = assign_splits(recordings)
    of_text = defaultdict(set)
    for item in recordings:
        of_text[tuple(words(item.metadata.text))].add(splits[item.metadata.group])
    assert all(len(found) == 1 for found in of_text.values())
    shares = Counter(splits[item.metadata.group] for item in recordings)
    assert shares["test"] > 60
    assert shares["dev"] > 60


def test_what_is_said_of_a_voice_is_what_flite_is_told(no_packages):
    recordings = synthetic.recordings(400)
    for item in recordings:
        attributes = item.metadata.attributes
        voice, left_out = VocalAttributes.from_record(attributes)
        assert not left_out
        assert voice.given == dict(attributes)
        told = item.load.keywords
        assert told["duration_factor"] == synthetic.SPEEDS[attributes["speed"]]
        own = next(found for found in synthetic.VOICES if found.name == item.load.args[1])
        assert (own.gender, own.accent) == (attributes["gender"], attributes["accent"])
        if own.pitch_hz is None:
            assert "pitch" not in attributes
            assert told["pitch_hz"] is None
        else:
            assert told["pitch_hz"] == pytest.approx(own.pitch_hz * synthetic.PITCHES[attributes["pitch"]], abs=0.1)
    assert {item.metadata.attributes["speed"] for item in recordings} == set(synthetic.SPEEDS)
    assert {item.metadata.attributes.get("pitch") for item in recordings} == {*synthetic.PITCHES, None}


def test_own_texts_come_first_and_only_once(no_packages):
    texts = ["Hello there.", "Hello  there.", grammar_sentences(1)[0]]
    recordings = synthetic.recordings(20, texts)
    assert [item.metadata.text for item in recordings[::2]][:3] == ["Hello there.", texts[2], grammar_sentences(2)[1]]
    assert len({item.metadata.id for item in recordings}) == 20
    with pytest.raises(ValueError, match="text to read is empty"):
        synthetic.recordings(2, [" "])
    with pytest.raises(ValueError, match="num_clips=0"):
        synthetic.recordings(0)


def test_other_machines_are_told_what_is_missing(monkeypatch):
    monkeypatch.setattr(synthetic.platform, "machine", lambda: "riscv64")
    with pytest.raises(CorpusError, match=r"needs Linux on x86_64.*riscv64"):
        synthetic.flite_program()


def test_libraries_get_the_names_that_programs_ask_for():
    assert synthetic._library_name("libflite_cmu_us_slt.so.2.2") == "libflite_cmu_us_slt.so.1"
    assert synthetic._library_name("libasound.so.2.0.0") == "libasound.so.2"


@pytest.mark.slow
def test_flite_reads_the_same_samples_each_time(tmp_path):
    corpus = dataclasses.replace(
        CORPORA["flite-speech"], recordings=partial(synthetic.recordings, num_clips=8), num_clips=8
    )
    try:
        clips, again = (load_manifest(build_corpus(corpus, tmp_path / name)) for name in ("one", "two"))
    except (PackageError, CorpusError) as error:
        pytest.skip(f"Flite cannot be had here: {error}")
    assert [clip.sha256 for clip in clips] == [clip.sha256 for clip in again]
    assert all(1 < clip.duration_seconds < 9 for clip in clips)
    slow, fast = (synthetic.synthesize("Good morning.", "slt", duration_factor=factor) for factor in (1.2, 0.85))
    assert len(slow) > 1.2 * len(fast)
    assert torch.isfinite(slow).all()
    assert slow.abs().max() > 0.05


def test_an_unknown_voice_is_refused(no_packages):
    with pytest.raises(ValueError, match="voice 'nobody': use one of slt, rms, awb, kal16"):
        synthetic.synthesize("Hello.", "nobody")
