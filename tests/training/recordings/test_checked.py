"""Recordings that a training starts with: what can be used, and what is said of the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from audiollm.training.loop.errors import DataError
from audiollm.training.recordings.checked import Recordings

RATE = 16000


@pytest.fixture
def folder(tmp_path):
    """A manifest of two good recordings and one of every kind that is of no use."""
    tone = np.sin(np.arange(RATE) * 0.2) * 0.3
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0 * tone], axis=1), RATE)
    soundfile.write(tmp_path / "other_rate.wav", np.repeat(tone, 3)[: 3 * RATE], 44100)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "blip.wav", np.zeros(100), RATE)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(RATE) == 9, np.nan, tone), RATE, subtype="FLOAT")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    names = ["stereo.wav", "empty.wav", "blip.wav", "nan.wav", "broken.wav", "absent.wav", "other_rate.wav"]
    records = [{"id": name, "audio": name} for name in names]
    records += [{"id": "codes alone", "codes": [1, 2]}, {"id": "silent on sound"}]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_every_recording_of_no_use_is_listed_by_file_line_and_reason(folder):
    with pytest.raises(DataError, match="7 of 9 records") as error:
        Recordings(str(folder / "clips.jsonl"), sample_rate=RATE, min_seconds=0.1)
    lines = str(error.value).splitlines()[1:-1]
    reasons = ["empty", "min_seconds=0.1", "NaN", "broken", "absent", "missing", "missing"]
    for line, number, reason in zip(lines, (2, 3, 4, 5, 6, 8, 9), reasons, strict=True):
        assert f"clips.jsonl:{number}" in line
        assert reason.lower() in line.lower()
    assert "on_bad: skip" in str(error.value)


def test_what_is_skipped_is_told_and_the_rest_has_the_rate_that_is_asked_for(folder, caplog):
    recordings = Recordings(str(folder / "clips.jsonl"), sample_rate=8000, min_seconds=0.1, on_bad="skip")
    assert "7 of 9 records" in caplog.text
    assert [recordings.id(index) for index in range(len(recordings))] == ["stereo.wav", "other_rate.wav"]
    assert [recordings.num_samples(index) for index in range(2)] == [8000, pytest.approx(48000 / 44100 * 8000, abs=2)]
    assert recordings.waveform(0).abs().max() == pytest.approx(0.15, abs=0.01)  # the mean of sound and silence
    assert (recordings.facts["num_clips"], recordings.facts["num_skipped"]) == (2, 7)


def test_nothing_usable_and_no_records_at_all_are_refused(folder):
    (folder / "bad.jsonl").write_text(json.dumps({"audio": "broken.wav"}))
    with pytest.raises(DataError, match="1 of 1 records"):
        Recordings(str(folder / "bad.jsonl"), sample_rate=RATE, on_bad="skip")
    (folder / "none.jsonl").write_text("")
    with pytest.raises(DataError, match=r"none\.jsonl holds no records"):
        Recordings(str(folder / "none.jsonl"), sample_rate=RATE)


def test_shares_of_several_processes_make_the_same_whole(folder):
    settings = {"sample_rate": RATE, "min_seconds": 0.1, "on_bad": "skip"}
    whole = Recordings(str(folder / "clips.jsonl"), **settings)
    shares = []
    for index in range(2):
        Recordings(
            str(folder / "clips.jsonl"), **settings, process_index=index, num_processes=2,
            gather=lambda mine: shares.append(mine) or mine,
        )  # fmt: skip
    joined = Recordings(str(folder / "clips.jsonl"), **settings, gather=lambda _: shares[1] + shares[0])
    assert joined.facts == whole.facts
    assert torch.equal(joined.waveform(1), whole.waveform(1))


def test_a_folder_of_audio_files_needs_no_manifest(folder):
    for name in ("empty.wav", "blip.wav", "nan.wav", "broken.wav", "clips.jsonl"):
        (folder / name).unlink()
    assert len(Recordings(str(folder), sample_rate=RATE)) == 2


def test_keys_that_nothing_reads_are_told(folder, caplog):
    (folder / "typed.jsonl").write_text(json.dumps({"audio": "stereo.wav", "transcirpt": "a"}))
    Recordings(str(folder / "typed.jsonl"), sample_rate=RATE)
    assert "transcirpt" in caplog.text
