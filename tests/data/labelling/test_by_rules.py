"""Rules say what a corpus states, and no more; records of every corpus are such as a trainer takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiollm.data.corpora.build import CORPORA
from audiollm.data.corpora.labels import LABELS_PATH
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER, load_sample_corpus
from audiollm.data.labelling.by_rules import label_by_rules, records_by_rules
from audiollm.data.labelling.rules import RULES, VOICES, rules_for
from audiollm.data.records import SOUND_TYPES
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import EVENT_TYPES, render_sap
from audiollm.data.sap.sounds import NoRuleError, sound_classes
from audiollm.data.sap.validation import validate_sap
from audiollm.data.voices.attributes import VocalAttributes

DEFAULT = rules_for("default")


@pytest.fixture(scope="module")
def records():
    return list(records_by_rules(SAMPLE_FOLDER))


def test_every_label_of_the_corpora_is_in_the_table():
    rows = [line.split("\t") for line in LABELS_PATH.read_text(encoding="utf-8").splitlines()[1:]]
    assert {row[2] for row in rows} - {"-"} <= sound_classes().keys()


def test_the_table_names_each_class_once_and_types_it():
    sounds = sound_classes().values()
    assert len({sound.name for sound in sounds}) == len({sound.summary for sound in sounds}) == len(sounds)
    assert {sound.type for sound in sounds} == set(EVENT_TYPES)
    for sound in sounds:
        assert sound.summary[0].isupper()
        assert sound.summary.endswith(".")
        assert validate_sap(DEFAULT.record({"label": sound.label})) == []


def test_there_are_rules_for_every_corpus_and_no_other():
    assert RULES.keys() == CORPORA.keys() | {"default"}
    with pytest.raises(ValueError, match=r"no rules for 'esc-50'; use one of default, asterisk"):
        rules_for("esc-50")


def test_every_clip_of_the_sample_becomes_a_valid_record(records):
    clips = {clip.id: clip for clip in load_sample_corpus()}
    assert {record["id"] for record in records} == clips.keys()
    for record in records:
        clip = clips[record["id"]]
        sap = parse_sap(record["sap"])
        assert render_sap(sap)
        assert record["sound_type"] == clip.sound_type
        assert record["text"] == " ".join((clip.text or "").split())
        assert sap.is_speech == (clip.sound_type == "speech")
        assert (
            validate_sap(sap, duration_seconds=clip.duration_seconds, transcript=clip.text or "", complete=False) == []
        )
        assert record.get("label") == clip.label
        assert (record["split"], record["group"], record["licence"]) == (clip.split, clip.group, clip.licence)
        assert ("caption" in record) == (clip.sound_type != "speech")


def test_a_speaker_is_what_the_name_of_the_voice_says():
    for speaker, voice in VOICES.items():
        sex = speaker.split("/")[1].split("_")[2]
        assert voice.gender == {"f": "female", "m": "male"}[sex]
    sap = DEFAULT.record({"text": "Yes.", "speaker": "asterisk/it_IT_m_Carlo"})
    assert sap.vocal_attributes == VocalAttributes(age="adult", gender="male")


def test_what_a_clip_states_of_its_voice_is_stronger_than_its_speaker():
    attributes = {"gender": "male", "age": 70, "speed": "fast", "pitch": "low", "emotion": "bored", "prompt": "yes"}
    sap = DEFAULT.record({"text": "Yes.", "speaker": "asterisk/en_US_f_Allison", "attributes": attributes})
    assert sap.vocal_attributes.given == {
        "gender": "male",
        "age": "elderly",
        "accent": "American",
        "prosody": "fast, low-pitched",
    }
    ordinary = DEFAULT.record({"text": "Yes.", "attributes": {"speed": "moderate", "pitch": "medium"}})
    assert ordinary.vocal_attributes is None


def test_music_is_put_into_the_words_of_its_labels():
    facts = {"sound_type": "music", "label": "calm", "attributes": {"style": "acoustic", "bpm": 68}}
    scene = DEFAULT.record(facts).auditory_scenes
    assert scene.summary == "Calm acoustic music is playing at a slow tempo."
    assert [event.to_dict() for event in scene.events] == [
        {"class": "music", "type": "persistent", "attributes": "calm"}
    ]
    assert DEFAULT.record({"sound_type": "music"}).auditory_scenes.summary == "Music is playing."
    facts = {"sound_type": "music", "attributes": {"genre": "Metal", "region": "asia", "bpm": 140}}
    assert DEFAULT.record(facts).auditory_scenes.summary == "Metal music from Asia is playing at a fast tempo."


def test_captions_add_to_a_class_what_it_does_not_say():
    facts = {"label": "horse", "caption": "Toyland: Tired mare (2)"}
    assert rules_for("opensfx").record(facts).auditory_scenes.events[0].attributes == "tired mare"
    assert rules_for("game-sounds").record(facts).auditory_scenes.events[0].attributes is None
    assert DEFAULT.record(facts | {"caption": "Horse"}).auditory_scenes.events[0].attributes is None


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "neither text nor label"),
        ({"label": "unicorn"}, "label 'unicorn' is not in sounds.tsv"),
        ({"sound_type": "sound"}, "sound without label"),
        ({"sound_type": "speech", "text": " "}, "speech without text"),
        ({"sound_type": "silence"}, "sound_type 'silence' is unknown"),
        ({"sound_type": "mix", "text": "a"}, "no rule for clips of type mix"),
    ],
)
def test_what_nothing_is_known_of_is_no_record(facts, reason):
    with pytest.raises(NoRuleError, match=reason):
        DEFAULT.record(facts)


def test_a_manifest_becomes_training_records_and_the_rest_is_counted(tmp_path):
    clips = [
        {"id": "a", "audio": "sounds/a.wav", "text": "Yes.", "attributes": {"emotion": "happy"}, "split": "train"},
        {"id": "b", "audio": "sounds/b.wav", "label": "bird", "split": "test"},
        {"audio": "/elsewhere/c.wav", "label": "bird", "split": "train"},
        {"id": "d", "audio": "d.wav", "label": "unicorn"},
        {"id": "e", "audio": "e.wav", "label": "unicorn"},
        {"id": "f", "label": "bird"},
        {"id": "g", "audio": "g.wav", "text": "Far more words than anybody could say", "duration_seconds": 0.5},
        "h.wav",
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    report = label_by_rules(tmp_path / "clips.jsonl", tmp_path / "out.jsonl")
    first, second, third = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["audio"], first["text"], first["emotion"], first["sound_type"]) == (
        "sounds/a.wav",
        "Yes.",
        "happiness",
        "speech",
    )
    assert "caption" not in first
    assert (second["text"], second["caption"], second["label"]) == ("", "A bird calls.", "bird")
    assert third["audio"] == "/elsewhere/c.wav"
    assert third["id"] == f"{tmp_path}/clips.jsonl:3"
    assert report.records == {"speech": 1, "sound": 2}
    assert report.records.keys() <= set(SOUND_TYPES)
    assert report.left_out == {
        "label 'unicorn' is not in sounds.tsv": 2,
        "no audio": 1,
        "linguistic_content is too long for the clip": 1,
        "not an object": 1,
    }
    assert f"left out: 2 (label 'unicorn' is not in sounds.tsv; first {tmp_path}/clips.jsonl:4)" in str(report)


def test_a_split_can_be_chosen_and_nothing_is_written_of_nothing(tmp_path):
    clips = [{"audio": "a.wav", "label": "bird", "split": "test"}, {"audio": "b.wav", "label": "bird"}]
    assert [record["audio"] for record in records_by_rules(clips, split="test")] == [str(Path("a.wav").absolute())]
    with pytest.raises(ValueError, match="no clip of split 'dev' has labels that rules know"):
        label_by_rules(clips, tmp_path / "out.jsonl", split="dev")
    assert list(tmp_path.iterdir()) == []
