"""What a model writes down of recordings is scored, kept, and gone on with; a stand-in listens beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch import Tensor

from audiollm.benchmarks import transcription
from audiollm.benchmarks.leaderboard.board import build_leaderboard
from audiollm.benchmarks.leaderboard.comparison.comparable import comparable
from audiollm.benchmarks.leaderboard.result_files import read_result
from audiollm.benchmarks.transcription import TranscriptionConfig, measure, spoken_clips
from audiollm.data.audio.sources import AudioError
from audiollm.data.conversion.writing import convert_data
from audiollm.data.manifest import RecordError, open_manifest
from audiollm.modeling import AudioLLM
from audiollm.transcription import transcribe

RATE = 8000
TEXTS = ["the old man reads", "a letter", "in the garden"]


class Listener:
    """Hears the texts in the order in which it is asked, with one word wrong in all."""

    source = "listener"

    def __init__(self, texts: Sequence[str] = ("the old men reads", "a letter", "in the garden")) -> None:
        self.texts = list(texts)

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        return [self.texts.pop(0) for _ in waveforms]


@pytest.fixture(scope="module")
def llm(audio_llm) -> AudioLLM:
    return AudioLLM.from_pretrained(audio_llm)


@pytest.fixture
def config(tmp_path, audio_llm) -> TranscriptionConfig:
    records = []
    for number, text in enumerate(TEXTS):
        samples = np.random.default_rng(number).normal(0, 0.1, (number + 1) * RATE).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", samples, RATE)
        records.append({"id": f"clip-{number}", "audio": f"{number}.wav", "text": text, "split": "test"})
    write(tmp_path, records)
    return TranscriptionConfig(
        model=str(audio_llm), data=str(tmp_path / "clips.jsonl"), output_dir=str(tmp_path / "out"),
        max_new_tokens=4, asr="listener", device="cpu",
    )  # fmt: skip


def write(folder: Path, records: Sequence[dict]) -> None:
    (folder / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def kept(config: TranscriptionConfig, row: str = "model") -> list[dict]:
    path = Path(config.output_dir) / row / "transcripts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_recording_is_transcribed_as_if_it_were_alone(config, llm, tmp_path):
    result = measure(replace(config, batch_size=2), llm, Listener())
    alone = [transcribe(llm, tmp_path / f"{number}.wav", max_new_tokens=4) for number in range(3)]
    assert [line["hypothesis"] for line in kept(config)] == [transcript.text for transcript in alone]
    assert [line["finish_reason"] for line in kept(config)] == [transcript.finish_reason for transcript in alone]
    assert [line["reference"] for line in kept(config)] == TEXTS
    row = result["rows"][config.model]
    assert row["cut"] == [f"clip-{n}" for n, transcript in enumerate(alone) if transcript.finish_reason == "length"]


def test_the_rate_is_over_all_words_and_over_clips(config, llm):
    row = measure(config, llm, Listener())["rows"]["listener"]
    assert (row["wer"], row["num_reference_words"], row["substitutions"]) == (1 / 9, 9, 1)
    assert row["wer_mean_of_clips"] == pytest.approx(1 / 12)
    assert [item["wer"] for item in row["items"]] == [0.25, 0, 0]


def test_a_stopped_run_goes_on_with_what_it_has(config, llm):
    class Stops(Listener):
        def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
            if len(self.texts) == 1:
                raise KeyboardInterrupt
            return super().transcribe(waveforms, sample_rate)

    with pytest.raises(KeyboardInterrupt):
        measure(config, llm, Stops())
    again = measure(config, llm, Listener(["in the garden"]))  # only the third is asked about
    assert [item["hypothesis"] for item in again["rows"]["listener"]["items"]] == [
        "the old men reads",
        "a letter",
        "in the garden",
    ]
    assert measure(config, llm, Listener([])) == again  # complete: nobody listens again


@pytest.mark.parametrize("change", [{"prompt": "What is said?"}, {"max_new_tokens": 3}, {"limit": 2}, {"mono": "mean"}])
def test_another_run_into_the_folder_is_refused(config, llm, change):
    measure(config, llm, Listener())
    with pytest.raises(ValueError, match=f"{next(iter(change))}.*choose another output"):
        measure(replace(config, **change), llm, Listener())


def test_the_conversations_that_a_training_evaluates_on_are_scored_as_the_clips(config, llm, tmp_path):
    clips = spoken_clips(open_manifest(config.data), config)
    convert_data(tmp_path / "clips.jsonl", tmp_path / "dev.jsonl", task="transcribe", instruction="Transcribe it.")
    same = spoken_clips(open_manifest(str(tmp_path / "dev.jsonl")), config)
    assert [(clip.id, clip.text) for clip in same[0]] == [(clip.id, clip.text) for clip in clips[0]]
    assert all(one.waveform()[0].equal(other.waveform()[0]) for one, other in zip(same[0], clips[0], strict=True))


@pytest.mark.parametrize(("task", "num_recordings"), [("emotion", 1), (None, 1), ("transcribe", 0), ("transcribe", 2)])
def test_conversations_that_do_not_tell_what_is_said_are_refused(config, tmp_path, task, num_recordings):
    asked = [{"type": "audio", "audio": "0.wav"}] * num_recordings + [{"type": "text", "text": "What?"}]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "an answer"}]
    write(tmp_path, [{"id": "1", "messages": turns} | ({"task": task} if task else {})])
    told = (
        f"clips.jsonl:1: is a conversation about {num_recordings} recordings, of task {task or 'none'}.*--task transc"
    )
    with pytest.raises(RecordError, match=told):
        spoken_clips(open_manifest(config.data), config)


def test_splits_limits_and_records_without_text(config, llm, tmp_path, caplog):
    records = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    records[0]["split"] = "train"
    del records[1]["text"]
    write(tmp_path, [*records, records[2] | {"id": "clip-3"}])
    result = measure(replace(config, split="test", limit=1, asr="none"), llm)
    assert [item["id"] for item in result["rows"][config.model]["items"]] == ["clip-2"]
    assert (list(result["rows"]), result["num_without_text"]) == ([config.model], 1)
    assert "1 records without text are left out" in caplog.text


def test_data_that_cannot_be_scored_are_refused_before_a_model_is_loaded(config, tmp_path):
    records = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    write(tmp_path, [{"audio": "0.wav"}])
    with pytest.raises(RecordError, match="holds no recordings with what is said in them"):
        measure(config)
    write(tmp_path, [records[0], records[1] | {"id": "clip-0"}])
    with pytest.raises(RecordError, match="'clip-0' is that of an earlier record"):
        measure(config)
    write(tmp_path, [{"text": "words"}])
    with pytest.raises(RecordError, match="neither messages nor audio"):
        measure(config)


def test_a_recording_that_cannot_be_read_is_named(config, llm, tmp_path):
    (tmp_path / "1.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"1\.wav"):
        measure(config, llm, Listener())


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"dtype": "float8"}, {"batch_size": 0}, {"max_new_tokens": 0}])
def test_settings_that_make_no_sense_are_refused(config, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(config, **wrong)


def test_results_stand_on_the_leaderboard_and_compare_by_place(config, llm, tmp_path):
    measure(config, llm, Listener())
    board = build_leaderboard(tmp_path / "out")
    (table,) = (table for table in board.tables if table.title == "Transcription")
    assert [row.model for row in table.rows] == [config.model, "listener"]
    assert table.rows[1].figures["WER"] == pytest.approx(100 / 9)
    assert not board.untraceable
    assert not board.unread
    figures = comparable(read_result(tmp_path / "out" / "result.json")).figures
    assert figures["recognizer, wer"].value == pytest.approx(1 / 9)
    assert figures["wer, mean over clips"].values.keys() == {"clip-0", "clip-1", "clip-2"}


def test_the_command_shows_a_row_for_each_and_says_what_was_cut(config, llm, monkeypatch, capsys, caplog):
    monkeypatch.setattr(transcription.AudioLLM, "from_pretrained", lambda *_, **__: llm)
    monkeypatch.setattr(transcription, "load_recognizer", lambda *_, **__: Listener())
    transcription.run(config)
    shown = capsys.readouterr().out
    assert "11.11%" in shown
    if any(line["finish_reason"] == "length" for line in kept(config)):
        assert "were cut at 4 tokens" in caplog.text
    transcription.run(replace(config, json=True))
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows["listener"]["wer"] == pytest.approx(1 / 9)
    assert "items" not in rows["listener"]
