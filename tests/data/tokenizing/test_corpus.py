"""Turning corpora into codes: right, resumable, and clear about what is bad."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import load_audio
from audiollm.data.conversation.loading import load_conversations, validate_conversations
from audiollm.data.files import parquet as parquet_output
from audiollm.data.manifest import RecordError
from audiollm.data.resumable_output import shard_path
from audiollm.data.tokenizing import encoding as corpus_encoding
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.data.tokenizing.source import open_corpus
from audiollm.tokenizer.base import Codes

RATE = 16_000
TEXT = {"type": "text", "text": "What is said?"}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "Nothing."}]}


class FakeTokenizer:
    """25 codes per second and codebook, each the loudness of its 40 ms."""

    sample_rate = RATE
    frame_rate = 25.0
    codebook_size = 4096
    max_segment_seconds: float | None = 30.0

    def __init__(self, name: str = "fake", num_codebooks: int = 1, stop_after: int | None = None) -> None:
        self.name = name
        self.num_codebooks = num_codebooks
        self.stop_after = stop_after  # calls of encode
        self.batches: list[tuple[int, list[int]]] = []
        self.streamed: list[int] = []

    def fingerprint(self) -> str:
        return self.name

    def codes_of(self, waveform, sample_rate):
        frame = sample_rate // 25
        padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % frame))
        loudness = (padded.abs().reshape(-1, frame).sum(-1) * 16000 / frame).long() % self.codebook_size
        return torch.stack([(loudness + book) % self.codebook_size for book in range(self.num_codebooks)])

    def encode(self, waveforms, sample_rate):
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise RuntimeError("the machine stops here")
        self.batches.append((sample_rate, [len(waveform) for waveform in waveforms]))
        return Codes.from_list([self.codes_of(waveform, sample_rate) for waveform in waveforms])

    def encode_stream(self, chunks, sample_rate):
        self.streamed.append(sample_rate)
        frame, rest = sample_rate // 25, torch.zeros(0)
        for chunk in chunks:
            rest = torch.cat([rest, chunk])
            whole = len(rest) // frame * frame
            if whole:
                yield self.codes_of(rest[:whole], sample_rate).squeeze(0)
            rest = rest[whole:]
        if len(rest):
            yield self.codes_of(rest, sample_rate).squeeze(0)


def shown_names(folder) -> list[str]:
    """What lies in a folder, without hidden files such as those by which outputs are held."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def write_clip(path, seconds=0.3, sample_rate=RATE, num_channels=1, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * sample_rate), num_channels))
    soundfile.write(path, samples, sample_rate, format="WAV")
    return path


def write_lines(path, records):
    path.write_text("".join(json.dumps(item) + "\n" for item in records), encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected_codes(path, mono="first", tokenizer=None):
    waveform, sample_rate = load_audio(path, mono=mono)
    return (tokenizer or FakeTokenizer()).codes_of(waveform, sample_rate)[0].tolist()


def run(source, output, tokenizer=None, **options):
    return tokenize_corpus(source, tokenizer or FakeTokenizer(), output, progress=False, **options)


@pytest.fixture
def folder(tmp_path):
    """Eight clips of three rates, one and two channels."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for index in range(8):
        rate, num_channels = (8000, 16_000, 48_000)[index % 3], 1 + index % 2
        write_clip(clips / f"{index}.wav", 0.1 + 0.17 * index, rate, num_channels, seed=index)
    return clips


@pytest.fixture
def manifest(folder):
    """Conversations over the clips: each with its own clip and the next one; every third has none."""
    records = []
    for index in range(8):
        audio = [{"type": "audio", "path": f"{(index + step) % 8}.wav"} for step in range(2) if index % 3]
        user = {"role": "user", "content": [*audio, TEXT]}
        records.append({"id": f"r{index}", "messages": [user, ANSWER], "task": "asr", "note": index})
    return write_lines(folder / "train.jsonl", records)


def test_a_folder_becomes_one_record_per_clip(folder, tmp_path):
    (folder / "README.txt").write_text("not audio")
    (folder / ".hidden.wav").write_text("not audio")
    (folder / "deep").mkdir()
    (folder / "0.wav").rename(folder / "deep" / "no_suffix")
    tokenizer = FakeTokenizer()
    report = run(folder, tmp_path / "codes.jsonl", tokenizer)
    records = read_lines(tmp_path / "codes.jsonl")
    assert [record["id"] for record in records] == [*(f"{i}.wav" for i in range(1, 8)), "deep/no_suffix"]
    for record in records:
        path = folder / record["id"]
        info = soundfile.info(path)
        assert record == {
            "id": record["id"],
            "audio": f"clips/{record['id']}",
            "codes": expected_codes(path),
            "num_samples": info.frames,
            "sample_rate": info.samplerate,
            "duration_seconds": pytest.approx(info.duration),
            "audio_tokenizer": "fake",
        }
    assert sorted(rate for rate, _ in tokenizer.batches) == [8000, 16_000, 48_000]  # one batch per rate
    assert (report.records, report.clips, report.skipped, report.rejected) == (8, 8, 0, None)
    assert report.seconds == pytest.approx(sum(0.1 + 0.17 * index for index in range(8)))
    assert report.tokens == sum(len(record["codes"]) for record in records)
    assert report.tokens_per_second == pytest.approx(report.tokens / report.seconds)
    assert shown_names(tmp_path) == ["clips", "codes.jsonl"]


def test_conversations_keep_everything_but_their_audio(manifest, folder, tmp_path):
    run(manifest, tmp_path / "codes.jsonl")
    before, after = load_conversations(manifest), load_conversations(tmp_path / "codes.jsonl", for_training=True)
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.task, new.metadata["note"]) == (old.id, old.task, old.metadata["note"])
        assert [m.role for m in new.messages] == [m.role for m in old.messages]
        assert new.messages[1] == old.messages[1]
        assert new.messages[0].content[-1] == old.messages[0].content[-1]
        assert [part.codes for part in new.audio_parts] == [expected_codes(part.path) for part in old.audio_parts]
        seconds = sum(part.probe().duration_seconds for part in old.audio_parts)
        assert new.metadata.get("audio_seconds", 0) == pytest.approx(seconds)
    assert validate_conversations(tmp_path / "codes.jsonl", codebook_size=4096, for_training=True) == []


def test_tokenizing_twice_changes_nothing(manifest, tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    run(manifest, first)
    tokenizer = FakeTokenizer()
    run(first, second, tokenizer)
    assert first.read_bytes() == second.read_bytes()
    assert tokenizer.batches == []


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_do_not_change_the_output(folder, tmp_path, batch_size, monkeypatch):
    monkeypatch.setattr(corpus_encoding, "MAX_GATHERED_RECORDS", 3)
    run(folder, tmp_path / "codes.jsonl", batch_size=batch_size)
    for record in read_lines(tmp_path / "codes.jsonl"):
        assert record["codes"] == expected_codes(folder / record["id"])


def test_a_clip_longer_than_a_batch_is_streamed(tmp_path):
    long, short = write_clip(tmp_path / "long.wav", 70.03), write_clip(tmp_path / "short.wav", 29)
    tokenizer = FakeTokenizer()
    run([long, short], tmp_path / "codes.jsonl", tokenizer, batch_size=2)
    assert tokenizer.streamed == [RATE]
    assert tokenizer.batches == [(RATE, [29 * RATE])]
    first, second = read_lines(tmp_path / "codes.jsonl")
    assert first["codes"] == expected_codes(long)
    assert first["num_samples"] == soundfile.info(long).frames
    assert second["codes"] == expected_codes(short)


def test_the_channels_are_mixed_as_asked(folder, tmp_path):
    for mono in ("first", "mean"):
        run(folder, tmp_path / f"{mono}.jsonl", mono=mono)
        for record in read_lines(tmp_path / f"{mono}.jsonl"):
            assert record["codes"] == expected_codes(folder / record["id"], mono)
    assert (tmp_path / "first.jsonl").read_text() != (tmp_path / "mean.jsonl").read_text()


def test_every_kind_of_clip_source_gives_the_same_codes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    names = [f"{index}.wav" for index in range(8)]
    clip_records = [{"id": name, "audio": name, "text": "words", "split": "train"} for name in names]
    sources = {
        "folder": folder,
        "list": [folder / name for name in names],
        "names": names,
        "clips": write_lines(tmp_path / "clips.jsonl", clip_records),
        "json_paths": write_lines(tmp_path / "paths.jsonl", names),
        "plain_paths": tmp_path / "paths.txt",
        "bytes": [{"audio": {"bytes": (folder / name).read_bytes(), "path": None}} for name in names],
    }
    sources["plain_paths"].write_text("\n".join(names))
    outputs = {}
    for kind, source in sources.items():
        base_dir = folder if kind in ("clips", "json_paths", "plain_paths") else None
        report = run(source, tmp_path / "out" / f"{kind}.jsonl", base_dir=base_dir)
        assert report.clips == 8
        outputs[kind] = read_lines(tmp_path / "out" / f"{kind}.jsonl")
        assert [record["codes"] for record in outputs[kind]] == [expected_codes(folder / name) for name in names], kind
    assert outputs["clips"][3]["text"] == "words"
    assert outputs["clips"][3]["audio"] == str(folder / "3.wav")  # not below the output: written in full
    assert outputs["plain_paths"][3]["id"] == outputs["json_paths"][3]["id"] == "3.wav"
    assert outputs["bytes"][0]["audio"] is None
    report = run(folder / "0.wav", tmp_path / "one.jsonl")
    assert report.clips == 1


def test_several_codebooks_make_nested_codes_for_clips_only(folder, manifest, tmp_path):
    tokenizer = FakeTokenizer(num_codebooks=3)
    report = run([folder / "0.wav"], tmp_path / "a.jsonl", tokenizer)
    (record,) = read_lines(tmp_path / "a.jsonl")
    assert np.shape(record["codes"]) == (3, 3)
    assert report.tokens == 9
    with pytest.raises(RecordError, match="one codebook's codes; this tokenizer has several"):
        run(manifest, tmp_path / "b.jsonl", tokenizer)


def test_parquet_holds_the_same_conversations(manifest, tmp_path, monkeypatch):
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(parquet_output, "PARQUET_ROWS", 3)  # records of different shapes end up in different chunks
    extra = {"id": "x", "messages": [{"role": "user", "content": "Hi"}, ANSWER], "tools": [{"name": "f"}], "rare": 1.5}
    with open(manifest, "a") as file:
        file.write(json.dumps(extra) + "\n")
    run(manifest, tmp_path / "codes.jsonl")
    run(manifest, tmp_path / "codes.parquet")
    lines, rows = load_conversations(tmp_path / "codes.jsonl"), load_conversations(tmp_path / "codes.parquet")
    assert list(lines) == list(rows)
    assert rows[8].tools == [{"name": "f"}]
    assert shown_names(tmp_path) == ["cache", "clips", "codes.jsonl", "codes.parquet"]


def test_records_that_parquet_cannot_hold_are_not_lost(folder, tmp_path):
    clips = [{"audio": str(folder / f"{index}.wav"), "label": index or "zero"} for index in range(3)]
    with pytest.raises(ValueError, match=r"cannot hold these records .* rename that to \.jsonl"):
        run(clips, tmp_path / "codes.parquet")
    assert len(read_lines(tmp_path / "codes.parquet.partial")) == 3
    assert not (tmp_path / "codes.parquet").exists()


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(folder, tmp_path):
    run(folder, tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


@pytest.fixture
def one_record_at_a_time(monkeypatch):
    monkeypatch.setattr(corpus_encoding, "MAX_GATHERED_RECORDS", 1)


@pytest.mark.usefixtures("one_record_at_a_time")
@pytest.mark.parametrize("stop_after", [0, 1, 5])
def test_an_interrupted_run_goes_on_where_it_stopped(folder, tmp_path, whole, stop_after):
    output = tmp_path / "codes.jsonl"
    with pytest.raises(RuntimeError, match="stops here"):
        run(folder, output, FakeTokenizer(stop_after=stop_after))
    assert not output.exists()
    tokenizer = FakeTokenizer()
    report = run(folder, output, tokenizer)
    assert len(tokenizer.batches) == 8 - stop_after
    assert (report.resumed, report.records, report.clips) == (stop_after, 8, 8)
    assert output.read_bytes() == whole
    fresh = run(folder, tmp_path / "again.jsonl")
    assert (report.tokens, report.seconds) == (fresh.tokens, pytest.approx(fresh.seconds))


@pytest.mark.usefixtures("one_record_at_a_time")
def test_wherever_the_partial_file_is_cut_the_result_is_the_same(folder, tmp_path, whole):
    output, partial = tmp_path / "codes.jsonl", tmp_path / "codes.jsonl.partial"
    with pytest.raises(RuntimeError):
        run(folder, output, FakeTokenizer(stop_after=4))
    content, settings = partial.read_bytes(), (tmp_path / "codes.jsonl.partial.json").read_bytes()
    for cut in [0, 1, content.index(b"\n"), content.index(b"\n") + 1, len(content) // 2, len(content) - 1]:
        output.unlink(missing_ok=True)
        partial.write_bytes(content[:cut])
        (tmp_path / "codes.jsonl.partial.json").write_bytes(settings)
        run(folder, output)
        assert output.read_bytes() == whole


KILLED_RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from audiollm.data.tokenizing import corpus, encoding
from test_corpus import FakeTokenizer
encoding.MAX_GATHERED_RECORDS = 1
class Stuck(FakeTokenizer):
    num_calls = 0
    def encode(self, waveforms, sample_rate):
        self.num_calls += 1
        while self.num_calls > 3:  # until it is killed
            time.sleep(1)
        return super().encode(waveforms, sample_rate)
corpus.tokenize_corpus({source!r}, Stuck(), {output!r}, progress=False)
"""


def test_a_killed_process_loses_at_most_the_record_at_hand(folder, tmp_path, whole):
    output, partial = tmp_path / "codes.jsonl", tmp_path / "codes.jsonl.partial"
    script = KILLED_RUN.format(tests=os.path.dirname(__file__), source=str(folder), output=str(output))
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 300
        while not (partial.exists() and partial.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(ValueError, match="is being written by another process"):
            run(folder, output)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    report = run(folder, output)
    assert 2 <= report.resumed < 8
    assert output.read_bytes() == whole


@pytest.mark.usefixtures("one_record_at_a_time")
def test_another_tokenizer_corpus_or_setting_cannot_go_on(folder, tmp_path):
    output = tmp_path / "codes.jsonl"
    with pytest.raises(RuntimeError):
        run(folder, output, FakeTokenizer(stop_after=2))
    with pytest.raises(ValueError, match=r"begun with another audio_tokenizer \(fake, now other\); delete it"):
        run(folder, output, FakeTokenizer("other"))
    with pytest.raises(ValueError, match=r"another mono \(first, now mean\)"):
        run(folder, output, mono="mean")
    write_clip(folder / "more.wav")
    with pytest.raises(ValueError, match="another corpus"):
        run(folder, output)
    (tmp_path / "codes.jsonl.partial.json").unlink()
    with pytest.raises(ValueError, match=r"another corpus \(unknown"):
        run(folder, output)
    (tmp_path / "codes.jsonl.partial").unlink()
    assert run(folder, output).records == 9


def test_an_output_that_exists_is_kept_unless_told_otherwise(folder, tmp_path):
    output = tmp_path / "codes.jsonl"
    run(folder, output)
    before = output.read_bytes()
    with pytest.raises(ValueError, match=r"codes\.jsonl exists already"):
        run(folder, output, FakeTokenizer("other"))
    assert output.read_bytes() == before
    run(folder, output, FakeTokenizer("other"), overwrite=True)
    assert {record["audio_tokenizer"] for record in read_lines(output)} == {"other"}


def test_the_shards_together_are_the_whole(folder, tmp_path, whole):
    output = tmp_path / "codes.jsonl"
    for num_shards in (3, 8):
        paths = [shard_path(output, shard, num_shards) for shard in range(num_shards)]
        reports = [run(folder, output, num_shards=num_shards, shard=shard) for shard in range(num_shards)]
        assert [report.output for report in reports] == [str(path) for path in paths]
        assert sum(report.records for report in reports) == 8
        assert b"".join(path.read_bytes() for path in paths) == whole
    assert paths[1].name == "codes-00001-of-00008.jsonl"
    report = run(folder, tmp_path / "many.jsonl", num_shards=20, shard=0)
    assert (report.records, (tmp_path / "many-00000-of-00020.jsonl").read_bytes()) == (0, b"")
    with pytest.raises(ValueError, match="shard=3 of num_shards=3"):
        run(folder, output, num_shards=3, shard=3)


# --- bad files --------------------------------------------------------------------------------------------------------


def spoil(folder):
    """Makes clips 2, 3 and 6 bad in three ways."""
    (folder / "2.wav").write_bytes(b"")
    (folder / "3.wav").write_bytes((folder / "3.wav").read_bytes()[:-50])
    soundfile.write(folder / "6.wav", np.array([0.1, np.nan]), RATE, subtype="FLOAT")


def test_the_first_bad_file_stops_the_run_by_name_and_keeps_what_is_done(folder, tmp_path):
    good = (folder / "2.wav").read_bytes()
    spoil(folder)
    output = tmp_path / "codes.jsonl"
    with pytest.raises(AudioError, match=r"clips/2\.wav: is empty \(0 bytes\)"):
        run(folder, output)
    assert not output.exists()
    assert len(read_lines(tmp_path / "codes.jsonl.partial")) == 2
    (folder / "2.wav").write_bytes(good)
    with pytest.raises(ValueError, match="another corpus"):  # its sizes differ: start afresh
        run(folder, output)


def test_a_bad_file_in_a_manifest_is_named_with_its_line(manifest, folder, tmp_path):
    spoil(folder)
    with pytest.raises(AudioError, match=r"train\.jsonl:2: messages\[0\]\.content\[1\]: .*/2\.wav: is empty"):
        run(manifest, tmp_path / "codes.jsonl")
    soundfile.write(folder / "2.wav", np.zeros(100), RATE)  # repaired: the run goes on from where it stopped
    with pytest.raises(AudioError, match=r"train\.jsonl:3: .*/3\.wav: is truncated"):
        run(manifest, tmp_path / "codes.jsonl")
    assert len(read_lines(tmp_path / "codes.jsonl.partial")) == 2


@pytest.mark.parametrize("stop_after", [None, 1, 2, 3])
def test_bad_records_are_skipped_counted_and_listed(folder, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(corpus_encoding, "MAX_GATHERED_RECORDS", 2)
    spoil(folder)
    output = tmp_path / "codes.jsonl"
    if stop_after is not None:
        with pytest.raises(RuntimeError):
            run(folder, output, FakeTokenizer(stop_after=stop_after), skip_bad=True)
        with open(tmp_path / "codes.jsonl.rejected.jsonl", "ab") as file:
            file.write(b'{"index": 7, "source": "of a batch that was never writ')
    report = run(folder, output, skip_bad=True)
    assert [record["id"] for record in read_lines(output)] == ["0.wav", "1.wav", "4.wav", "5.wav", "7.wav"]
    assert (report.records, report.skipped, report.clips) == (5, 3, 5)
    assert report.rejected == str(output) + ".rejected.jsonl"
    rejected = read_lines(tmp_path / "codes.jsonl.rejected.jsonl")
    assert [(entry["index"], entry["reason"].split(" (")[0][:12]) for entry in rejected] == [
        (2, "is empty"),
        (3, "is truncated"),
        (6, "holds nan at"),
    ]
    assert all(entry["source"].endswith(f"{entry['index']}.wav") for entry in rejected)


def test_rejections_noted_ahead_of_the_output_are_made_anew(folder, tmp_path):
    """A process killed between the two files must neither lose nor double a record."""
    output = tmp_path / "codes.jsonl"
    with pytest.raises(RuntimeError):
        run(folder, output, FakeTokenizer(stop_after=0), skip_bad=True)
    ahead = {"index": 5, "source": "5.wav", "reason": "was bad before"}
    (tmp_path / "codes.jsonl.rejected.jsonl").write_text(json.dumps(ahead) + "\n")
    report = run(folder, output, skip_bad=True)
    assert (report.records, report.skipped) == (8, 0)


def test_bad_records_of_a_manifest_are_skipped_too(manifest, folder, tmp_path):
    with open(manifest, "a") as file:
        file.write('{"id": "typo", "mesages": []}\n{broken\n"0.wav"\n[17]\n{"audio": "https://a.b/c.wav"}\n')
    report = run(manifest, tmp_path / "codes.jsonl", skip_bad=True)
    assert (report.records, report.skipped) == (9, 4)
    reasons = [entry["reason"] for entry in read_lines(tmp_path / "codes.jsonl.rejected.jsonl")]
    assert [reason.split(";")[0].split(":")[0] for reason in reasons] == [
        "has neither messages nor audio",
        "is not JSON",
        "a record is an object or a path, not a list",
        "audio.path",
    ]
    with pytest.raises(RecordError, match=r"train\.jsonl:9: has neither messages nor audio; it has id, mesages"):
        run(manifest, tmp_path / "strict.jsonl")


def test_codes_of_another_codebook_are_refused(tmp_path):
    bad = {"messages": [{"role": "user", "content": [{"type": "audio", "codes": [5000]}]}, ANSWER]}
    with pytest.raises(RecordError, match="5000 is out of range"):
        run([bad], tmp_path / "codes.jsonl")


def test_nothing_to_do_and_nothing_but_bad_files_are_errors(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RecordError, match="neither audio files nor records"):
        run(empty, tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="holds no records"):
        run([], tmp_path / "a.jsonl")
    (empty / "a.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"all 1 records are bad; .*rejected\.jsonl says why"):
        run(empty, tmp_path / "a.jsonl", skip_bad=True)
    write_clip(empty / "a.wav")
    assert run(empty, tmp_path / "a.jsonl", skip_bad=True).records == 1


def test_a_clip_that_gives_no_codes_is_bad(tmp_path):
    class Deaf(FakeTokenizer):
        def codes_of(self, waveform, sample_rate):
            return torch.zeros(1, 0, dtype=torch.int64)

    with pytest.raises(AudioError, match="gives no codes"):
        run([write_clip(tmp_path / "a.wav")], tmp_path / "a.jsonl", Deaf())


def test_the_tokenizer_is_told_the_batch_size_if_it_wants_to_know(folder, tmp_path):
    class Batched(FakeTokenizer):
        def encode(self, waveforms, sample_rate, *, batch_size=16):
            assert batch_size == 5
            return super().encode(waveforms, sample_rate)

    assert run(folder, tmp_path / "a.jsonl", Batched(), batch_size=5).records == 8
    with pytest.raises(ValueError, match="batch_size=0"):
        run(folder, tmp_path / "b.jsonl", batch_size=0)


def test_dates_and_arrays_of_data_sets_are_written(tmp_path):
    import datetime

    clip = io.BytesIO()
    soundfile.write(clip, np.zeros(100), RATE, format="WAV")
    record = {"audio": {"bytes": clip.getvalue()}, "day": datetime.date(2026, 1, 2), "vector": np.arange(2)}
    run([record], tmp_path / "a.jsonl")
    (written,) = read_lines(tmp_path / "a.jsonl")
    assert (written["day"], written["vector"]) == ("2026-01-02", [0, 1])


def test_a_pattern_stands_for_recordings_or_records_and_not_both(folder, tmp_path):
    found = open_corpus(str(folder / "*.wav"))
    assert [os.path.basename(record["audio"]) for record in found] == sorted(
        name for name in os.listdir(folder) if name.endswith(".wav")
    )
    write_lines(folder / "some.jsonl", [{"id": "a", "audio": str(folder / "0.wav")}])
    assert [record["id"] for record in open_corpus(str(folder / "*.jsonl"))] == ["a"]
    with pytest.raises(RecordError, match=r"stands for recordings \(.*0\.wav\) and others \(.*some\.jsonl\): name one"):
        open_corpus(str(folder / "*"))


def test_recordings_that_no_record_of_their_folder_can_name_are_told_of(folder, caplog):
    names = [name for name in os.listdir(folder) if name.endswith((".wav", ".flac", ".opus"))]
    write_lines(folder / "some.jsonl", [{"id": "a", "audio": names[0]}])
    assert len(open_corpus(str(folder))) == 1
    assert f"holds {len(names)} recordings and 1 records: recordings that no record names are left out" in caplog.text
    caplog.clear()
    write_lines(folder / "some.jsonl", [{"id": name, "audio": name} for name in names])
    assert len(open_corpus(str(folder))) == len(names)
    assert not caplog.text
