from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram
from audiollm.training.decoder import shards as decoder_data
from audiollm.training.decoder.clips import ClipFormat
from audiollm.training.decoder.shards import Column, prepare_items
from audiollm.training.loop.errors import DataError

MEL = MelConfig(num_mels=20)
FORMAT = ClipFormat(MEL, frame_rate=25.0, codebook_size=64)


@pytest.fixture
def records(tmp_path, decoder_parts) -> list[dict]:
    return [decoder_parts.make_clip(tmp_path, number, 0.4 + 0.13 * number) for number in range(4)]


def prepare(folder: Path, records: list[dict], **options):
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    return prepare_items(str(manifest), options.pop("clip_format", FORMAT), folder / "cache", **options)


def test_codes_waveform_and_mel_of_an_item_belong_together(tmp_path, records):
    items = prepare(tmp_path, records)
    assert [items.id(index) for index in range(4)] == [record["id"] for record in records]
    for item, record in zip(items, records, strict=True):
        assert item.codes.tolist() == record["codes"]
        assert item.text == record["text"]
        num_frames = FORMAT.num_mel_frames(len(item.codes))
        assert item.mel.shape == (20, num_frames)
        assert item.waveform.shape == (256 * num_frames,)
        torch.testing.assert_close(MelSpectrogram(MEL)(item.waveform[None])[0], item.mel)
        recorded, _ = soundfile.read(tmp_path / record["audio"], dtype="float32")
        assert item.waveform.square().mean().item() == pytest.approx(np.square(recorded).mean(), rel=0.15)
        assert item.f0 is None
        assert item.speaker is None
    assert items.seconds == pytest.approx(sum(len(record["codes"]) for record in records) / 25, abs=0.1)


def test_pieces_of_a_waveform_are_pieces_of_the_whole(tmp_path, records):
    items = prepare(tmp_path, records)
    assert torch.equal(items.waveform(2, 300, 900), items[2].waveform[300:900])
    assert torch.equal(items.waveform(2, 300), items[2].waveform[300:])
    assert items[1:3][1].id == items[2].id


def test_mel_frames_of_codes_follow_the_decoders_float32_rule(decoder_parts):
    for frame_rate in (25.0, 12.5):
        sizes = decoder_parts.tiny_decoder()
        flow = FlowModel(dataclasses.replace(sizes.flow, frame_rate=frame_rate), MEL)
        counts = torch.arange(1, 6001)
        clip_format = ClipFormat(MEL, frame_rate, 64)
        assert flow.num_mel_frames(counts).tolist() == [clip_format.num_mel_frames(count) for count in range(1, 6001)]


def test_clips_without_codes_are_encoded_by_the_audio_tokenizer(tmp_path, records, decoder_parts):
    audio_tokenizer = decoder_parts.build_audio_tokenizer()
    plain = [{name: value for name, value in record.items() if name != "codes"} for record in records]
    items = prepare(tmp_path, plain, audio_tokenizer=audio_tokenizer)
    for item, record in zip(items, records, strict=True):
        waveform, rate = soundfile.read(tmp_path / record["audio"], dtype="float32")
        assert item.codes.tolist() == audio_tokenizer.encode([torch.from_numpy(waveform)], rate).tolist()[0]
    with pytest.raises(DataError, match=r"4 of 4 records[\s\S]*clips\.jsonl:1: has no codes.*audiollm tokenize"):
        prepare(tmp_path, plain)


def test_codes_of_another_tokenizer_are_refused_if_the_record_tells(tmp_path, records, decoder_parts):
    audio_tokenizer = decoder_parts.build_audio_tokenizer()
    records[0]["audio_tokenizer"] = audio_tokenizer.fingerprint()
    assert len(prepare(tmp_path, records, audio_tokenizer=audio_tokenizer)) == 4
    records[2]["audio_tokenizer"] = "0123abcd"
    with pytest.raises(DataError, match=r"clips\.jsonl:3: codes: were made by another audio tokenizer \(0123abcd\)"):
        prepare(tmp_path, records, audio_tokenizer=audio_tokenizer)


def test_prepared_clips_are_found_again_and_not_made_again(tmp_path, records, monkeypatch):
    monkeypatch.setattr(decoder_data, "SHARD_RECORDS", 2)
    first = prepare(tmp_path, records)
    shards = sorted(first.folder.glob("clips_*"))
    assert len(shards) == 2
    shards[1].unlink()  # as if killed in between
    made = shards[0].stat().st_mtime_ns
    again = prepare(tmp_path, records)
    assert shards[0].stat().st_mtime_ns == made
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again[3].mel, first[3].mel)
    # Another setting has a folder of its own.
    other = prepare(tmp_path, records, clip_format=ClipFormat(MelConfig(num_mels=10), 25.0, 64))
    assert other.folder != first.folder
    assert other.fingerprint != first.fingerprint


def test_shards_are_shared_among_processes(tmp_path, records, monkeypatch):
    monkeypatch.setattr(decoder_data, "SHARD_RECORDS", 1)
    waits = []

    def second_process() -> None:
        waits.append(len(waits))
        if len(waits) == 1:
            prepare(tmp_path, records, process_index=1, num_processes=2, wait_for_everyone=lambda: None)

    items = prepare(tmp_path, records, process_index=0, num_processes=2, wait_for_everyone=second_process)
    assert len(items) == 4
    assert waits


def test_a_column_is_computed_once_and_leaves_the_clips_alone(tmp_path, records):
    plain = prepare(tmp_path, records)
    calls = []

    def compute(item):
        calls.append(item.id)
        return torch.full((item.mel.shape[1],), 100.0 + len(item.codes))

    column = Column("f0", {"method": "constant"}, compute)
    for _ in range(2):
        items = prepare(tmp_path, records, columns=[column])
    assert calls == [record["id"] for record in records]
    assert items.fingerprint == plain.fingerprint
    assert items.f0(1).tolist() == [100.0 + len(records[1]["codes"])] * items.num_frames(1)
    assert prepare(tmp_path, records)[0].f0 is None


def test_a_records_own_speaker_vector_goes_before_the_column(tmp_path, records):
    records[1]["speaker_vector"] = [0.0, 1.0, 0.0]
    column = Column("speaker", {"encoder": "zero"}, lambda item: torch.zeros(3))
    items = prepare(tmp_path, records, columns=[column])
    assert items.speaker(1).tolist() == [0.0, 1.0, 0.0]
    assert items.speaker(0).tolist() == [0.0, 0.0, 0.0]
    assert prepare(tmp_path, records).speaker(0) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "absent.wav"}, "absent.wav: no such file"),
        ({"audio": "text.wav"}, "text.wav"),
        ({"audio": "short.wav", "codes": [1]}, r"lasts 0\.050 s; clips of 0\.2 to 600 s"),
        ({"codes": [1, 64]}, "64 is out of range; codes are from 0 to 63"),
        ({"codes": [-1]}, "-1 is out of range"),
        ({"codes": []}, "not empty"),
        ({"codes": [[1, 2], [3]]}, "one list of whole numbers"),
        ({"codes": [[1, 2], [3, 4]]}, "one codebook's list"),
        ({"codes": [0.5]}, "whole numbers"),
        ({"codes": [1] * 40}, r"has 40 codes, but its 0\.530 s of audio make 14 at 25 codes per second"),
        ({"audio": None}, "has no audio, which is what a decoder learns to make; it has id"),
        ({"speaker_vector": [1.0, float("inf")]}, "finite numbers"),
    ],
)
def test_unusable_clips_are_named_with_their_line_and_left_out_on_request(tmp_path, records, change, message):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(800, np.float32), 16000)
    records[1] |= change
    for _ in range(2):  # the second time from a cache that must not remember the defect
        with pytest.raises(DataError, match=rf"1 of 4 records cannot be trained on:\n.*clips\.jsonl:2.*{message}"):
            prepare(tmp_path, records)
    items = prepare(tmp_path, records, on_bad="skip")
    assert [item.id for item in items] == ["clip-0", "clip-2", "clip-3"]


def test_a_repaired_clip_is_read_again(tmp_path, records):
    whole = (tmp_path / "clip_2.wav").read_bytes()
    (tmp_path / "clip_2.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"clip_2\.wav.*truncated"):
        prepare(tmp_path, records)
    (tmp_path / "clip_2.wav").write_bytes(whole)
    assert len(prepare(tmp_path, records)) == 4


def test_nothing_to_train_on_is_refused(tmp_path, records):
    with pytest.raises(DataError, match="2 of 2 records"):
        prepare(tmp_path, [record | {"codes": [99]} for record in records[:2]], on_bad="skip")
    (tmp_path / "empty.jsonl").write_text(json.dumps([]))
    with pytest.raises(DataError, match="holds no records"):
        prepare_items(str(tmp_path / "empty.jsonl"), FORMAT, tmp_path / "cache")


def test_a_shard_that_cannot_be_written_leaves_nothing_behind(tmp_path, records, monkeypatch):
    def write_half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(decoder_data, "save_file", write_half)
    with pytest.raises(OSError, match="disk full"):
        prepare(tmp_path, records)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
