"""Scores of predicted SAP records: what counts, what does not, and what is never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audiollm.benchmarks.sap.scoring import score_closed
from audiollm.data.sap.record import AuditoryScene, SapRecord, SoundEvent, render_sap
from audiollm.data.voices.attributes import VocalAttributes


def speech(text: str, **voice: Any) -> SapRecord:
    return SapRecord(linguistic_content=text, vocal_attributes=VocalAttributes(**voice))


def sounds(*labels: str) -> SapRecord:
    events = tuple(SoundEvent(label=label, type="transient") for label in labels)
    return SapRecord(auditory_scenes=AuditoryScene(summary="Sounds.", events=events))


REFERENCES = [speech("ring the bell now", gender="male", age="adult", emotion="anger"), sounds("dog bark", "door")]


def test_a_perfect_prediction_has_perfect_scores() -> None:
    scores = score_closed([render_sap(record) for record in REFERENCES], REFERENCES)
    assert scores == {
        "num_records": 2, "num_speech": 1, "num_events": 2, "num_age": 1, "num_gender": 1, "num_emotion": 1,
        "valid_json": 1, "readable": 1, "age_accuracy": 1, "gender_accuracy": 1, "emotion_accuracy": 1,
        "wer": 0, "false_speech": 0, "event_recall": 1, "event_precision": 1, "event_f1": 1,
    }  # fmt: skip


def test_words_and_fields_are_counted_over_what_references_have() -> None:
    references = [*REFERENCES, speech("good morning", gender="female")]
    predictions = [
        speech("ring the ball", gender="female", age="adult"),
        speech("hello", gender="male"),
        speech("Good, morning!", gender="female", age="child"),
    ]
    scores = score_closed([render_sap(record) for record in predictions], references)
    assert scores["wer"] == 2 / 6  # one substituted, one missing; the words where nobody speaks are not among them
    assert scores["false_speech"] == 1
    assert (scores["gender_accuracy"], scores["num_gender"]) == (1 / 2, 2)
    assert (scores["age_accuracy"], scores["num_age"]) == (1, 1)  # what no reference says is not scored
    assert scores["emotion_accuracy"] == 0
    assert (scores["event_recall"], scores["event_precision"], scores["event_f1"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("prediction", "valid", "readable"),
    [
        (f"```json\n{render_sap(REFERENCES[0])}\n```", 1, 1),
        (render_sap(REFERENCES[0]).replace('"', "'"), 0, 1),
        ("no idea", 0, 0),
        ("", 0, 0),
        ("[]", 0, 0),
    ],
)
def test_what_cannot_be_read_is_wrong_and_what_is_repaired_counts(
    prediction: str, valid: float, readable: float
) -> None:
    scores = score_closed([prediction], REFERENCES[:1])
    assert (scores["valid_json"], scores["readable"]) == (valid, readable)
    assert scores["gender_accuracy"] == readable
    assert scores["wer"] == 1 - readable


def test_a_value_in_no_closed_set_is_no_value() -> None:
    said = REFERENCES[0].to_dict()
    said["vocal_attributes"]["emotion"] = "bored"
    neutral = speech("ring the bell now", emotion="neutral")
    scores = score_closed([json.dumps(said)], [neutral])
    assert (scores["valid_json"], scores["readable"], scores["emotion_accuracy"]) == (0, 1, 0)


def test_events_are_counted_one_by_one() -> None:
    references = [sounds("Dog_Bark", "dog bark", "rain")]
    scores = score_closed([render_sap(sounds("dog bark", "wind"))], references)
    assert (scores["event_recall"], scores["event_precision"]) == (1 / 3, 1 / 2)
    assert scores["event_f1"] == 2 / 5


def test_scores_without_anything_to_score_are_absent() -> None:
    scores = score_closed([render_sap(sounds())], [sounds()])
    assert not {"wer", "gender_accuracy", "event_f1", "event_recall"} & scores.keys()
    assert scores["false_speech"] == 0
    assert "false_speech" not in score_closed([render_sap(REFERENCES[0])], REFERENCES[:1])


def test_languages_without_spaces_are_counted_by_character() -> None:
    reference = speech("你好世界", gender="male")
    prediction = render_sap(speech("你好世", gender="male"))
    assert score_closed([prediction], [reference], normalizer="basic", unit="character")["wer"] == 1 / 4
    assert score_closed([prediction], [reference], normalizer="basic")["wer"] == 1


def test_predictions_and_references_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        score_closed(["{}"], REFERENCES)
    with pytest.raises(ValueError, match="0 predictions for 0 references"):
        score_closed([], [])
