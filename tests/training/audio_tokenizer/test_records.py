"""The tokenizer's training data: every record is checked once, and an example depends on nothing but its arguments."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audiollm.training.audio_tokenizer.check import RecordsCheck
from audiollm.training.audio_tokenizer.clips import WaveformCache
from audiollm.training.audio_tokenizer.records import TokenizerRecords, check_weights, choose_task
from audiollm.training.audio_tokenizer.targets import TargetError, parse_targets
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.record import read_metrics

TASKS = {"asr": 1.0, "sap": 1.0, "caption": 1.0, "emotion": 1.0}
SAP = {
    "linguistic_content": "seven cats",
    "vocal_attributes": {"gender": "female"},
    "auditory_scenes": {"summary": "A woman speaks.", "events": []},
}


class ByteText:
    """One token per byte; targets of more than ``positions`` tokens behind the start are cut."""

    end_id = 1
    starts = {"asr": 2, "sap": 3, "caption": 4, "emotion": 5}  # noqa: RUF012

    def __init__(self, positions: int = 448) -> None:
        self.positions = positions

    def encode(self, task: str, text: str) -> list[int]:
        ids = [self.starts[task], *(byte + 6 for byte in text.encode()), self.end_id]
        return ids[: self.positions + 1]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):
        samples = rng.integers(-3000, 3000, size=8000 + 160 * number, dtype=np.int16)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16000)
    return tmp_path


def write_manifest(folder: Path, records: list[Any], name: str = "train.jsonl") -> str:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def open_records(source: Any, text: ByteText | None = None, **options: Any) -> TokenizerRecords:
    return TokenizerRecords(source, text or ByteText(), **{"tasks": TASKS, **options})


def good_records() -> list[dict[str, Any]]:
    return [
        {"id": "a", "audio": "0.wav", "text": "one", "caption": "a voice", "split": "train"},
        {"id": "b", "audio": "1.wav", "sap": SAP, "split": "train"},
        {"id": "c", "audio": "2.wav", "text": "", "sound_type": "music", "split": "dev"},
        {"audio": "3.wav", "text": "two", "sap": SAP, "emotion": "Happy", "sound_type": "mix", "split": "train"},
    ]


# --- targets ----------------------------------------------------------------------------------------------------------


def test_sound_type_follows_from_the_words_where_it_is_not_given() -> None:
    assert parse_targets({"text": "hello"}, number=0, where="f:1").sound_type == "speech"
    assert parse_targets({"sap": SAP}, number=0, where="f:1").sound_type == "speech"
    assert parse_targets({"caption": "a bell"}, number=0, where="f:1").sound_type == "sound"
    assert parse_targets({"caption": "a band", "sound_type": "music"}, number=0, where="f:1").sound_type == "music"


def test_empty_transcript_is_a_target_of_wordless_clips_only() -> None:
    assert parse_targets({"text": " ", "sound_type": "sound"}, number=0, where="f:1").texts == {"asr": ""}
    for record in ({"text": ""}, {"text": "", "sound_type": "speech"}, {"text": "", "sound_type": "mix"}):
        with pytest.raises(TargetError, match=r"^f:1: text: is empty.*sound_type"):
            parse_targets(record, number=0, where="f:1")


def test_transcript_comes_from_the_sap_record_where_there_is_no_text() -> None:
    texts = parse_targets({"sap": json.dumps(SAP)}, number=0, where="f:1").texts
    assert texts["asr"] == "seven cats"
    assert json.loads(texts["sap"])["linguistic_content"] == "seven cats"
    other = parse_targets({"sap": SAP, "text": "eight"}, number=0, where="f:1").texts
    assert other["asr"] == "eight"


def test_every_wrong_field_is_named_at_once() -> None:
    record = {"text": 3, "caption": "", "emotion": ["sad"], "sap": {"vocal_attributes": 1}, "sound_type": "noise"}
    with pytest.raises(TargetError) as error:
        parse_targets(record, number=0, where="f.jsonl:7")
    fields = {problem.field for problem in error.value.problems}
    assert fields == {"text", "caption", "emotion", "sap", "sound_type"}
    assert all(line.startswith("f.jsonl:7: ") for line in str(error.value).splitlines())


def test_sap_record_that_cannot_have_been_said_in_the_time_is_refused() -> None:
    record = {"sap": {"linguistic_content": "words upon words " * 20, "vocal_attributes": {"gender": "male"}}}
    parse_targets(record, number=0, where="f:1", duration_seconds=30.0)
    with pytest.raises(TargetError, match="sap: linguistic_content is too long"):
        parse_targets(record, number=0, where="f:1", duration_seconds=1.0)


def test_tasks_are_drawn_by_weight_and_take_turns_between_epochs() -> None:
    weights = {"asr": 3.0, "sap": 1.0}
    draws = [
        choose_task(weights, ["asr", "sap"], seed=0, epoch=epoch, clip_id=str(clip))
        for clip in range(400)
        for epoch in range(4)
    ]
    assert draws == [
        choose_task(weights, ["asr", "sap"], seed=0, epoch=epoch, clip_id=str(clip))
        for clip in range(400)
        for epoch in range(4)
    ]
    assert collections.Counter(draws)["asr"] / len(draws) == pytest.approx(0.75, abs=0.04)
    assert len({tuple(draws[clip * 4 : clip * 4 + 4]) for clip in range(400)}) > 10  # not the same task every epoch
    assert choose_task(weights, ["sap"], seed=0, epoch=0, clip_id="x") == "sap"


@pytest.mark.parametrize("weights", [{"sapp": 1.0}, {"asr": -1.0}, {"asr": 0.0}, {}, {"asr": float("nan")}])
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="tasks: "):
        check_weights(weights)


# --- records ----------------------------------------------------------------------------------------------------------


def test_examples_hold_the_recording_and_the_tokens_of_a_task_it_has(recordings: Path) -> None:
    records = open_records(write_manifest(recordings, good_records()))
    assert len(records) == 4
    assert [records.id(index) for index in range(4)] == ["a", "b", "c", "3"]
    assert [records.sound_type(index) for index in range(4)] == ["speech", "speech", "music", "mix"]
    assert [records.tasks(index) for index in range(4)] == [
        ("asr", "caption"), ("asr", "sap"), ("asr",), ("asr", "sap", "emotion"),
    ]  # fmt: skip
    for index in range(4):
        expected, _ = soundfile.read(recordings / f"{index}.wav", dtype="float32")
        example = records.example(index, epoch=0, seed=0)
        assert torch.equal(example.waveform, torch.from_numpy(expected))  # 16-bit recordings stay exact
        assert records.num_samples(index) == len(expected)
        assert example.task in records.tasks(index)
        assert example.token_ids == ByteText().encode(example.task, records.targets(index).texts[example.task])
    assert records.example(2, 0, 0).token_ids == [2, 1]
    assert records.where(3).endswith("train.jsonl:4")
    assert records.record(3)["emotion"] == "Happy"
    seen = {token for index in range(4) for task in records.tasks(index) for token in records.example(index, 0, 0, task=task).token_ids}  # fmt: skip  # noqa: E501
    assert records.token_ids == sorted(seen)


def test_an_example_is_the_same_whether_its_waveform_is_in_memory_or_not(recordings: Path) -> None:
    samples = np.random.default_rng(1).normal(0, 0.7, size=5000)  # beyond full scale, and not 16 bits
    soundfile.write(recordings / "0.wav", samples.astype(np.float32), 16000, subtype="FLOAT")
    soundfile.write(recordings / "1.wav", np.stack([samples, -0.5 * samples], axis=1), 22050)
    source = write_manifest(recordings, good_records())
    cached, uncached = open_records(source), open_records(source, cache_bytes=0)
    for index in range(4):
        assert torch.equal(cached.waveform(index), uncached.waveform(index))
    expected, _ = soundfile.read(recordings / "0.wav", dtype="float32")
    np.testing.assert_allclose(cached.waveform(0), expected, atol=2.0**-13)  # a peak between 2 and 4
    (recordings / "3.wav").unlink()
    assert len(cached.waveform(3)) == cached.num_samples(3)
    with pytest.raises(DataError, match=r"train\.jsonl:4.*no such file"):
        uncached.waveform(3)


def test_cache_keeps_what_it_has_and_no_more_than_it_may() -> None:
    cache = WaveformCache(max_bytes=200)
    for number in range(4):
        cache.keep(number, torch.full((50,), float(number)))
    assert len(cache) == 2
    assert cache.get(1) is not None
    assert cache.get(2) is None
    assert torch.equal(cache.keep(9, torch.zeros(3)), torch.zeros(3))  # silence has no peak to scale by


def test_bad_records_are_listed_together_with_file_line_and_field(recordings: Path) -> None:
    (recordings / "empty.wav").write_bytes(b"")
    (recordings / "cut.wav").write_bytes((recordings / "0.wav").read_bytes()[:3000])
    soundfile.write(recordings / "long.wav", np.zeros(16000 * 3), 16000)
    bad: list[Any] = [
        {"audio": "empty.wav", "text": "one"},
        {"audio": "cut.wav", "text": "one"},
        {"audio": "missing.wav", "text": "one"},
        {"text": "one"},
        {"audio": "0.wav", "text": ""},
        {"audio": "0.wav", "sap": {"linguistic_content": 3}},
        {"audio": "0.wav"},
        {"audio": "long.wav", "text": "one"},
        {"audio": "0.wav", "text": "x" * 50},
        '{"audio": "0.wav", "text"',
        "[]",
        {"audio": {"codes": [1, 2]}, "text": "one"},
        {"audio": "0.wav", "sap": SAP | {"linguistic_content": "all these words in half a second"}},
    ]
    good = {"id": "good", "audio": "0.wav", "text": "one"}
    source = write_manifest(recordings, [*bad, good])
    with pytest.raises(DataError) as error:
        open_records(source, ByteText(positions=40), max_seconds=2.0)
    message = str(error.value)
    assert "13 of 14 records cannot be trained on" in message
    reasons = [
        "is empty", "truncated", "no such file", "audio: is missing", "text: is empty", "sap: ", "nothing to learn",
        "lasts 3.00 s", "text: 50 characters", "is not JSON", "a record is an object", "codes", "too long for the clip",
    ]  # fmt: skip
    for line, part in enumerate(reasons, start=1):
        assert any(f"train.jsonl:{line}: " in said and part in said for said in message.splitlines()), (line, part)
    assert "on_bad: skip" in message

    records = open_records(source, ByteText(positions=40), max_seconds=2.0, on_bad="skip")
    assert [records.id(index) for index in range(len(records))] == ["good"]
    path = records.write_skipped(recordings, "train")
    assert path is not None
    assert path.name == "skipped_train.jsonl"
    skipped = read_metrics(path)
    assert [line["record"] for line in skipped] == list(range(13))
    assert "truncated" in skipped[1]["reason"]
    with pytest.raises(DataError, match="13 of 13"):
        open_records(write_manifest(recordings, bad), ByteText(positions=40), max_seconds=2.0, on_bad="skip")


def test_long_lists_of_bad_records_are_cut_and_counted(recordings: Path) -> None:
    source = write_manifest(recordings, [{"audio": f"no{n}.wav", "text": "one"} for n in range(25)])
    with pytest.raises(DataError, match="… and 5 more"):
        open_records(source)


def test_records_without_a_configured_task_say_what_they_have(recordings: Path) -> None:
    source = write_manifest(recordings, [{"audio": "0.wav", "caption": "a bell"}])
    with pytest.raises(DataError, match=r"nothing for the tasks asr, sap; it has caption"):
        open_records(source, tasks={"asr": 1.0, "sap": 0.5, "caption": 0.0})
    with pytest.raises(DataError, match="nothing for the task emotion"):
        open_records(source).example(0, 0, 0, task="emotion")


def test_a_split_is_chosen_by_its_key(recordings: Path) -> None:
    source = write_manifest(recordings, good_records())
    assert [open_records(source, split="train").id(index) for index in range(3)] == ["a", "b", "3"]
    with pytest.raises(DataError, match=r"no records whose split is 'test' \(4 of others\)"):
        open_records(source, split="test")


@pytest.mark.parametrize("num_processes", [2, 3, 6])
def test_processes_share_the_check_and_come_to_the_same_records(recordings: Path, num_processes: int) -> None:
    source = write_manifest(recordings, [*good_records(), {"audio": "no.wav", "text": "one"}])
    alone = open_records(source, on_bad="skip")
    parts: list[RecordsCheck] = []

    def note(mine: list[RecordsCheck]) -> list[RecordsCheck]:
        parts.extend(mine)
        return mine

    for rank in range(num_processes):  # the last of six has no record at all
        try:
            open_records(source, on_bad="skip", process_index=rank, num_processes=num_processes, gather=note)
        except DataError:
            assert not parts[-1].entries
    assert sum(len(part.entries) + len(part.problems) for part in parts) == 5
    together = open_records(
        source, on_bad="skip", process_index=0, num_processes=num_processes, gather=lambda mine: parts
    )
    assert together.fingerprint == alone.fingerprint
    assert together.token_ids == alone.token_ids
    assert together.skipped == alone.skipped
    assert torch.equal(together.waveform(3), alone.waveform(3))


def test_fingerprint_changes_with_recordings_and_targets_and_nothing_else(recordings: Path) -> None:
    fingerprint = open_records(write_manifest(recordings, good_records())).fingerprint
    noted = [record | {"note": "x"} for record in good_records()]
    assert open_records(write_manifest(recordings, noted, "other.jsonl")).fingerprint == fingerprint
    changed = good_records()
    changed[0]["text"] = "three"
    assert open_records(write_manifest(recordings, changed, "other.jsonl")).fingerprint != fingerprint
    samples, rate = soundfile.read(recordings / "0.wav", dtype="int16")
    soundfile.write(recordings / "0.wav", samples[::-1], rate)
    assert open_records(write_manifest(recordings, good_records())).fingerprint != fingerprint
