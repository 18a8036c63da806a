"""The whole batch path under generated records and files: nothing about one record stops a run or changes another."""

import json
import os
import random
import re

import numpy as np
import pytest
import soundfile
import torch

from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.loading import load_conversations, validate_conversations
from audiollm.data.conversation.problems import ConversationError
from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.corpus import tokenize_corpus
from tests.data.generated_records import (
    GOOD,
    clip_line,
    conversation_line,
    legal_clip,
    legal_conversation,
    numbers_of_lines,
    write_corpus,
)
from tests.data.tokenizing.test_corpus import FakeTokenizer, read_lines

NUM_RECORDS = 1400


class StrictTokenizer(FakeTokenizer):
    """Takes no rate outside 4 to 200 kHz, as real ones do; the error concerns all that it was given."""

    def encode(self, waveforms, sample_rate):
        if not 4000 <= sample_rate <= 200_000:
            raise ValueError(f"sample_rate={sample_rate}: give the rate of the waveform in Hz, 4000 to 200000")
        return super().encode(waveforms, sample_rate)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    makers = [clip_line, conversation_line], [legal_clip, legal_conversation]
    return write_corpus(tmp_path_factory.mktemp("corpus"), *makers, NUM_RECORDS, random.Random(7))


def run(source, output):
    return tokenize_corpus(source, StrictTokenizer(), output, skip_bad=True, progress=False, batch_size=2)


def test_every_record_is_done_or_rejected_and_the_done_ones_are_as_if_alone(corpus, tmp_path, caplog):
    path, num_records = corpus
    report = run(path, tmp_path / "codes.jsonl")
    done = read_lines_of(tmp_path / "codes.jsonl")
    rejected = read_lines_of(tmp_path / "codes.jsonl.rejected.jsonl")
    assert (report.records, report.skipped) == (len(done), len(rejected))
    assert len(done) + len(rejected) == num_records
    assert min(len(done), len(rejected)) > 0.4 * num_records
    lines_of = numbers_of_lines(path)
    for entry in rejected:
        assert re.match(rf"{re.escape(str(path))}:{lines_of[entry['index']]}\b", entry["source"])
        assert entry["reason"]
        assert "\n" not in entry["reason"]
    assert len(said(caplog)) == 1
    # What is left when the bad ones are gone gives the same output.
    bad = {entry["index"] for entry in rejected}
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    alone = path.with_name("alone.jsonl")
    alone.write_bytes(b"\n".join(line for index, line in enumerate(lines) if index not in bad))
    again = run(alone, tmp_path / "again.jsonl")
    assert again.skipped == 0
    assert [without_place(one) for one in read_lines_of(tmp_path / "again.jsonl")] == [
        without_place(one) for one in done
    ]


def said(caplog) -> list[str]:
    return [one.getMessage() for one in caplog.records if "keys that nothing reads" in one.getMessage()]


def read_lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def without_place(record):
    """A record's content, but for an id that its place gave it; NaN is equal to itself as text."""
    kept = dict(record)
    if ".jsonl:" in str(kept.get("id")):
        del kept["id"]
    return json.dumps(kept)


def test_checks_and_reading_for_training_name_the_record(corpus):
    path, num_records = corpus
    conversations = load_conversations(path, for_training=True, codebook_size=4096)
    problems = validate_conversations(
        path, for_training=True, check_audio=True, codebook_size=4096, max_problems=100 * num_records
    )
    named = {problem.where for problem in problems}
    assert all(place.startswith(f"{path}:") for place in named)
    places = []
    for index in range(num_records):
        try:
            conversation = conversations[index]
        except ConversationError as error:
            places.append((error.where, conversations.manifest.where(index)))
            continue
        for part in conversation.audio_parts:
            try:
                part.codes or part.load()
            except AudioError as error:
                places.append((error.source[: len(conversation.where)], conversation.where))
    assert all(told == meant for told, meant in places)


def test_a_record_that_parquet_cannot_hold_is_rejected_alone(tmp_path):
    soundfile.write(tmp_path / GOOD, np.zeros(1600), 16_000)
    lines = [{"audio": GOOD, "text": text} for text in ("one", "half \ud83d", "two")]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = run(tmp_path / "clips.jsonl", tmp_path / "codes.parquet")
    assert (report.records, report.skipped) == (2, 1)


def test_without_skip_bad_the_first_bad_record_is_named_and_what_was_done_is_kept(tmp_path):
    soundfile.write(tmp_path / GOOD, np.zeros(1600), 16_000)
    soundfile.write(tmp_path / "odd.wav", np.zeros(1600), 1001)
    source = tmp_path / "clips.jsonl"
    source.write_text("".join(json.dumps({"audio": name}) + "\n" for name in (GOOD, "odd.wav", GOOD)))
    with pytest.raises((AudioError, RecordError), match=r"clips.jsonl:2.*sample_rate=1001"):
        tokenize_corpus(source, StrictTokenizer(), tmp_path / "codes.jsonl", progress=False)
    assert len(read_lines(tmp_path / "codes.jsonl.partial")) == 1


def test_names_of_other_bytes_are_tokenized(tmp_path):
    (tmp_path / "clips").mkdir()
    name = os.fsencode(tmp_path / "clips") + b"/\xc4\xe3.wav"
    with open(name, "wb") as file:
        soundfile.write(file, np.zeros(1600), 16_000, format="WAV")
    assert run(tmp_path / "clips", tmp_path / "codes.jsonl").records == 1
    assert os.fsencode(read_lines_of(tmp_path / "codes.jsonl")[0]["id"]) == b"\xc4\xe3.wav"


def test_segments_of_clips_are_all_that_is_encoded_and_keep_their_place(tmp_path):
    soundfile.write(tmp_path / GOOD, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000)
    lines = [
        {"audio": GOOD, "offset": 0.5, "duration": 1.0},
        {"audio_filepath": GOOD, "duration": 2.0},
        {"audio": {"path": GOOD, "offset": 1.5}},
        {"audio": GOOD, "duration": 3.0},
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = run(tmp_path / "clips.jsonl", tmp_path / "codes.jsonl")
    cut, whole, end = read_lines_of(tmp_path / "codes.jsonl")
    assert [len(one["codes"]) for one in (cut, whole, end)] == [25, 50, 13]
    assert cut["codes"] == expected(tmp_path / GOOD, 8000, 24_000)
    assert (cut["offset"], cut["duration"], cut["num_samples"]) == (0.5, 1.0, 16_000)
    assert end["offset"] == 1.5
    assert report.skipped == 1


def expected(path, start, stop):
    samples = soundfile.read(path, dtype="float32")[0][start:stop]
    return FakeTokenizer().codes_of(torch.from_numpy(samples), 16_000)[0].tolist()
