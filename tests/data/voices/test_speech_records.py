"""Clips become requests to speak: what is said of the voice is true, and nothing is dropped without a count."""

from __future__ import annotations

import json

import pytest

from audiollm.data.conversation.loading import load_conversations
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.data.voices.levels import characters_per_second, levels
from audiollm.data.voices.speech_records import (
    SpeechTaskReport,
    SpeechTaskSettings,
    speech_records,
    write_speech_records,
)


def clip(number=0, **fields):
    return {
        "id": f"clip-{number}",
        "text": f"Sentence number {number}.",
        "codes": [1, 2, 3],
        "duration_seconds": 1.5,
    } | fields


def made(clips, report=None, **settings):
    return list(speech_records(clips, SpeechTaskSettings(**settings), report=report))


def test_records_are_training_conversations_that_answer_with_the_recording():
    (record,) = made([clip(7, speaker="f03", language="en")])
    conversation = parse_conversation(record, for_training=True, codebook_size=8)
    assert conversation.task == "speak"
    assert conversation.messages[0].content[0].text.endswith("\n\nSentence number 7.")
    assert conversation.messages[1].content[0].codes == [1, 2, 3]
    assert record["prompt"].startswith("speak/")
    assert (record["speaker"], record["language"]) == ("f03", "en")
    assert "voice" not in record


def test_what_is_said_of_the_voice_is_what_is_known_of_it():
    known = {"gender": "Female", "age": "Elderly", "emotion": "Sadness", "accent": "Irish", "speed": "slow"}
    clips = [clip(n, vocal_attributes=known) for n in range(300)]
    report = SpeechTaskReport()
    records = made(clips, report, measure=False)
    full = VocalAttributes.from_record(known)[0].given
    num_named = []
    for record in records:
        message = record["messages"][0]["content"][0]["text"]
        request, text = message.split("\n\n")
        assert text.startswith("Sentence number")
        voice = record.get("voice", {})
        assert voice.items() <= full.items()
        assert VocalAttributes.from_text(request.partition(": ")[2]).given == voice
        assert record["prompt"].split("/")[0] == ("speak_in_voice" if voice else "speak")
        num_named.append(len(voice))
    assert report.num_records == 300
    assert report.with_voice == sum(map(bool, num_named))
    assert report.with_voice == pytest.approx(240, abs=25)  # voice_share
    assert num_named.count(5) == pytest.approx(240 * (0.5 + 0.5 / 5), abs=30)  # all, or a drawn number that is all
    assert set(num_named) == set(range(6))
    assert sum(report.attributes.values()) == sum(num_named)
    assert report.seconds == pytest.approx(450)
    assert made(clips, measure=False) == records
    assert made(clips, measure=False, seed=1) != records
    assert made(clips[5:6], measure=False) == records[5:6]  # the words follow from the clip alone
    assert not any("voice" in record for record in made(clips[:50], voice_share=0.0))
    assert all(record["voice"] == full for record in made(clips[:50], voice_share=1.0, all_attributes_share=1.0))


def test_labels_are_found_wherever_they_stand_and_the_nearest_counts():
    places = {
        "attributes": {"gender": "male", "artist": "x"},
        "paralinguistics": {"gender": "Female", "timbre": "warm"},
        "sap": {"vocal_attributes": {"gender": "male", "age": "Adult"}},
        "age": None,
        "pitch": "high",
    }
    (record,) = made([clip(**places)], voice_share=1.0, all_attributes_share=1.0)
    assert record["voice"] == {"gender": "female", "age": "adult", "timbre": "warm", "pitch": "high"}
    (record,) = made([{"sap": {"linguistic_content": "From the label."}, "codes": [5]}])
    assert record["messages"][0]["content"][0]["text"].endswith("From the label.")


def test_whatever_is_left_out_is_counted_with_its_reason(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"not looked at")
    bad = [
        ("no text", clip(text=None)),
        ("no text", clip(text="?!")),
        ("no audio", clip(codes=None)),
        ("the audio file is missing", clip(codes=None, audio="gone.wav")),
        ("audio lies inside the record: run audiollm tokenize first", clip(codes=None, audio={"bytes": b"RIFF"})),
        ("audio is neither a file nor codes", clip(codes=None, audio="https://example.org/a.wav")),
        ("codes are no list of codes of one codebook", clip(codes=[[1], [2]])),
        ("codes are no list of codes of one codebook", clip(codes=[])),
        ("too short", clip(duration_seconds=0.1)),
        ("too long", clip(duration_seconds=31, text="word " * 100)),
        ("too little text for its duration", clip(duration_seconds=20)),
        ("too much text for its duration", clip(text="x" * 100, duration_seconds=2)),
        ("a conversation already", {"messages": []}),
        ("not an object", "clip.wav"),
    ]
    good = [
        clip(1, emotion="bored"),
        clip(2, duration_seconds=None),
        clip(3, codes=None, audio=str(tmp_path / "a.wav")),
    ]
    report = SpeechTaskReport()
    records = made([record for _, record in bad] + good, report)
    assert [record["id"] for record in records] == ["clip-1/speak", "clip-2/speak", "clip-3/speak"]
    expected = [reason for reason, _ in bad]
    assert report.left_out == {reason: expected.count(reason) for reason in expected}
    assert report.examples["no audio"] == "<list>[2]"
    assert report.unknown_values == {"emotion: bored": 1}
    assert "2 (no text; first <list>[0])" in str(report)
    assert "emotion: bored (1)" in str(report)
    report = SpeechTaskReport()
    assert made([clip(1, split="dev"), clip(2, split="train")], report, split="train")[0]["id"] == "clip-2/speak"
    assert report.left_out == {"not of split train": 1}


def test_written_records_load_again_from_wherever_the_folder_moves(tmp_path):
    folder = tmp_path / "data"
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "a.wav").write_bytes(b"-")
    (folder / "clips.jsonl").write_text(json.dumps(clip(1, codes=None, audio="clips/a.wav")) + "\n")
    report = write_speech_records(folder / "clips.jsonl", folder / "speak.jsonl")
    assert report.num_records == 1
    folder.rename(tmp_path / "moved")
    (conversation,) = load_conversations(tmp_path / "moved" / "speak.jsonl")
    assert conversation.audio_parts[0].path == str(tmp_path / "moved" / "clips" / "a.wav")
    with pytest.raises(ValueError, match=r"(?s)none of the clips.*no text"):
        write_speech_records([clip(text="")], tmp_path / "empty.jsonl")
    assert not (tmp_path / "empty.jsonl").exists()


@pytest.mark.parametrize(
    "bad", [{"voice_share": 1.5}, {"all_attributes_share": -1}, {"min_seconds": 5, "max_seconds": 4}]
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SpeechTaskSettings(**bad)


# Measured attributes


def test_speed_and_pitch_are_measured_against_clips_of_the_same_kind():
    # Forty clips per language: Finnish is spoken at twice the characters per second, and men an octave lower.
    clips = []
    for number in range(40):
        for language, factor in (("en", 1.0), ("fi", 2.0)):
            gender = "male" if number % 2 else "female"
            text = "x" * int((10 + number) * factor * 2)
            f0 = (110 if gender == "male" else 220) + number
            clips.append(
                clip(len(clips), text=text, duration_seconds=8, language=language, gender=gender, f0_median_hz=f0)
            )
    records = made(clips, voice_share=1.0, all_attributes_share=1.0, min_characters_per_second=0.1)
    for language in ("en", "fi"):
        voices = [record["voice"] for record in records if record["language"] == language]
        assert [voice["speed"] for voice in voices] == ["slow"] * 8 + ["moderate"] * 24 + ["fast"] * 8
    men = [record["voice"]["pitch"] for record in records if record["voice"]["gender"] == "male"]
    assert men == ["low"] * 8 + ["medium"] * 24 + ["high"] * 8
    labelled = [clip | {"speed": "fast"} for clip in clips]
    records = made(labelled, voice_share=1.0, all_attributes_share=1.0, min_characters_per_second=0.1)
    assert {record["voice"]["speed"] for record in records} == {"fast"}  # a label counts more than a measurement
    assert "speed" not in made(clips, voice_share=1.0, all_attributes_share=1.0, measure=False)[0].get("voice", {})


def test_groups_that_are_small_or_all_alike_get_no_level():
    assert levels("speed", [1.0, 2.0, 3.0], ["en"] * 3) == [None] * 3
    assert levels("speed", [1.0] * 30, ["en"] * 30) == [None] * 30
    values = [*map(float, range(20)), None, float("nan")]
    assert levels("pitch", values, ["f"] * 22)[:5] == ["low"] * 4 + ["medium"]
    assert levels("pitch", values, ["f"] * 22)[-2:] == [None, None]
    assert levels("pitch", values, [None] * 22) == [None] * 22
    with pytest.raises(ValueError, match="'age' has no levels"):
        levels("age", [], [])
    with pytest.raises(ValueError, match=r"edge_share=0\.6"):
        levels("speed", [], [], edge_share=0.6)


def test_marks_and_blanks_take_no_time():
    assert characters_per_second("Ab, c!", 1.5) == 2.0
    with pytest.raises(ValueError, match="duration_seconds=0"):
        characters_per_second("a", 0)
