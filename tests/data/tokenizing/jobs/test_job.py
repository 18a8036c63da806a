"""A corpus as a folder of shards: the codes of one file, whole after any interruption, clear about what is bad."""

import errno
import threading

import numpy as np
import pyarrow.parquet
import pytest

from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.loading import load_conversations
from audiollm.data.files.lock import locked_file
from audiollm.data.files.parquet import read_facts
from audiollm.data.manifest import RecordError, open_manifest
from audiollm.data.tokenizing import encoding
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.data.tokenizing.jobs import job as jobs
from audiollm.data.tokenizing.jobs import shards as shard_files
from audiollm.data.tokenizing.jobs.job import tokenize_into_folder
from audiollm.data.tokenizing.jobs.tries import DEATHS_AT_A_RECORD, DEATHS_BEFORE_CARE, MOST_DEATHS, Tries
from audiollm.data.tokenizing.jobs.work import WorkerError
from tests.data.tokenizing.corpora import samples, sound, write_cuts, write_tar
from tests.data.tokenizing.test_corpus import ANSWER, TEXT, FakeTokenizer, read_lines, shown_names, write_lines

NUM_CLIPS = 12
CLIP_SECONDS = 0.2
TWO_CLIPS = 2 * CLIP_SECONDS / 3600  # hours, a little more than which makes shards of two clips
HOURS = TWO_CLIPS * 1.1


def run(source, output, tokenizer=None, **options):
    tokenizer = tokenizer or FakeTokenizer()
    settings = {"shard_hours": HOURS, "progress": False, **options}
    return tokenize_into_folder(source, lambda device: tokenizer, output, **settings)


def rows(folder):
    """All records of a folder's shards, in order."""
    paths = sorted(folder.glob("*.parquet"))
    return [row for path in paths for row in pyarrow.parquet.read_table(path).to_pylist()]


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index in range(NUM_CLIPS):
        (folder / f"{index:02d}.wav").write_bytes(sound(CLIP_SECONDS, seed=index))
    return folder


@pytest.fixture
def sources(clips, tmp_path):
    """The same clips as corpora of every kind."""
    names = sorted(path.name for path in clips.iterdir())
    records = [{"id": n, "audio": str(clips / n), "text": "words", "duration": CLIP_SECONDS} for n in names]
    user = [{"role": "user", "content": [{"type": "audio", "path": str(clips / name)}, TEXT]} for name in names]
    chats = [
        {"id": name, "messages": [turn, ANSWER], "audio_seconds": 0.2} for name, turn in zip(names, user, strict=True)
    ]
    pyarrow.parquet.write_table(
        pyarrow.table({"id": names, "audio": [{"bytes": (clips / n).read_bytes(), "path": n} for n in names]}),
        tmp_path / "rows.parquet",
    )
    return {
        "folder": clips,
        "list": [clips / name for name in names],
        "clips": write_lines(tmp_path / "clips.jsonl", records),
        "chats": write_lines(tmp_path / "chats.jsonl", chats),
        "parquet": tmp_path / "rows.parquet",
        "tar": write_tar(tmp_path / "a.tar", samples(4)),
        "cuts": write_cuts(tmp_path / "cuts.jsonl", [clips / name for name in names], CLIP_SECONDS),
    }


@pytest.mark.parametrize("kind", ["folder", "list", "clips", "chats", "parquet", "tar", "cuts"])
def test_the_shards_hold_what_one_file_would(sources, tmp_path, kind):
    tokenize_corpus(sources[kind], FakeTokenizer(), tmp_path / "one.parquet", progress=False)
    report = run(sources[kind], tmp_path / "codes")
    one = pyarrow.parquet.read_table(tmp_path / "one.parquet").to_pylist()
    many = rows(tmp_path / "codes")
    for record in (*one, *many):
        record.pop("audio", None)  # is written relative to the output
    assert many == one
    assert (report.records, report.skipped, report.resumed) == (len(one), 0, 0)
    assert report.shards == len(list((tmp_path / "codes").glob("*.parquet")))
    assert report.shards > 1 or kind in ("tar", "parquet")


def test_each_shard_says_who_made_it_and_is_small(clips, tmp_path):
    run(clips, tmp_path / "codes")
    paths = sorted((tmp_path / "codes").glob("*"))
    assert [path.name for path in paths] == [".job", *(f"codes-{n:05d}-of-00006.parquet" for n in range(6))]
    for number, path in enumerate(paths[1:]):
        facts = read_facts(path)
        assert (facts["audio_tokenizer"], facts["number"], facts["num_shards"]) == ("fake", number, 6)
        assert (facts["records"], facts["tokens"], facts["rejected"]) == (2, 10, [])
        assert facts["seconds"] == pytest.approx(0.4)
        metadata = pyarrow.parquet.read_metadata(path)
        assert metadata.row_group(0).column(0).compression == "ZSTD"
        assert pyarrow.parquet.read_schema(path).field("codes").type == pyarrow.list_(pyarrow.int16())


def test_codes_inside_conversations_are_small_too_and_large_codebooks_are_held(sources, tmp_path):
    run(sources["chats"], tmp_path / "codes")
    schema = pyarrow.parquet.read_schema(tmp_path / "codes" / "codes-00000-of-00006.parquet")
    content = schema.field("messages").type.value_type.field("content").type.value_type
    assert content.field("codes").type == pyarrow.list_(pyarrow.int16())

    class Large(FakeTokenizer):
        codebook_size = 100_000

        def codes_of(self, waveform, sample_rate):
            return super().codes_of(waveform, sample_rate) + 90_000

    run(sources["folder"], tmp_path / "large", Large(num_codebooks=2))
    assert all(np.min(record["codes"]) >= 90_000 for record in rows(tmp_path / "large"))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_finished_folder_is_read_as_one(sources, tmp_path):
    run(sources["chats"], tmp_path / "codes")
    conversations = load_conversations(tmp_path / "codes", for_training=True)
    assert [one.id for one in conversations] == [f"{index:02d}.wav" for index in range(NUM_CLIPS)]
    assert {made_by for _, made_by in conversations.manifest.code_makers()} == {"fake"}


def test_an_unfinished_folder_is_not_taken_for_the_whole(clips, tmp_path):
    codes = tmp_path / "codes"
    run(clips, codes)
    (codes / "codes-00003-of-00006.parquet").unlink()
    for source in (codes, codes / "*.parquet"):
        with pytest.raises(RecordError, match=r"codes: holds 5 of 6 shards of codes.* has not finished; run it again"):
            open_manifest(str(source))
    assert run(clips, codes).records == NUM_CLIPS
    assert len(open_manifest(codes)) == NUM_CLIPS


def test_a_folder_of_two_audio_tokenizers_is_refused(clips, tmp_path):
    for name in ("one", "other"):
        tokenize_corpus(clips, FakeTokenizer(name), tmp_path / "mixed" / f"{name}.parquet", progress=False)
    for source in (tmp_path / "mixed", tmp_path / "mixed" / "*.parquet"):
        with pytest.raises(
            RecordError, match=r"two audio tokenizers, one in .*one\.parquet and other in .*other\.parq"
        ):
            open_manifest(str(source))
    assert len(open_manifest(tmp_path / "mixed" / "one.parquet")) == NUM_CLIPS


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_a_stopped_job_goes_on_and_makes_no_shard_twice(clips, tmp_path, stop_after):
    codes = tmp_path / "codes"
    with pytest.raises(WorkerError, match=r"codes-.*\.parquet: RuntimeError: the machine stops here"):
        run(clips, codes, FakeTokenizer(stop_after=stop_after))
    there = {path.name: path.stat().st_mtime_ns for path in codes.glob("*.parquet")}
    assert len(there) <= stop_after
    report = run(clips, codes)
    assert report.resumed == 2 * len(there)
    assert {name: (codes / name).stat().st_mtime_ns for name in there} == there
    assert [record["id"] for record in rows(codes)] == [f"{index:02d}.wav" for index in range(NUM_CLIPS)]
    assert run(clips, codes).resumed == NUM_CLIPS  # all is there


def test_parts_of_a_job_together_are_the_whole(clips, tmp_path):
    codes = tmp_path / "codes"
    reports = [run(clips, codes, num_shards=4, shard=shard) for shard in (2, 0, 3, 1)]
    assert sum(report.records for report in reports) == NUM_CLIPS
    assert [record["id"] for record in rows(codes)] == [f"{index:02d}.wav" for index in range(NUM_CLIPS)]
    assert run(clips, codes).resumed == NUM_CLIPS  # one call for all finds nothing to do


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tokenizer": FakeTokenizer("other")}, r"audio_tokenizer \(fake, now other\)"),
        ({"mono": "mean"}, r"mono \(first, now mean\)"),
        ({"shard_hours": 2.0}, "shard_hours"),
    ],
)
def test_another_job_cannot_go_on_in_the_folder(clips, tmp_path, change, named):
    run(clips, tmp_path / "codes")
    before = rows(tmp_path / "codes")
    with pytest.raises(ValueError, match=rf"codes was begun with another {named}.*set --overwrite to start afresh"):
        run(clips, tmp_path / "codes", **change)
    assert rows(tmp_path / "codes") == before
    run(clips, tmp_path / "codes", overwrite=True, **change)
    assert len(rows(tmp_path / "codes")) == NUM_CLIPS


@pytest.mark.parametrize("kind", ["folder", "clips", "tar", "cuts"])
def test_a_corpus_that_changed_meanwhile_is_noticed(sources, tmp_path, kind):
    with pytest.raises(WorkerError):
        run(sources[kind], tmp_path / "codes", FakeTokenizer(stop_after=0))
    if kind == "folder":
        (sources[kind] / "more.wav").write_bytes(sound())
    elif kind == "tar":
        write_tar(sources[kind], samples(5))
    else:
        lines = sources[kind].read_text().splitlines(keepends=True)
        sources[kind].write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="was begun with another corpus"):
        run(sources[kind], tmp_path / "codes")


def test_a_folder_of_something_else_is_left_alone(clips, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds files, but no job of tokenizing"):
            run(clips, tmp_path / "mine", overwrite=overwrite)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        run(clips, tmp_path / "mine" / "notes.txt")
    assert shown_names(tmp_path / "mine") == ["notes.txt"]


def test_shards_that_are_damaged_or_of_another_job_are_named(clips, tmp_path):
    run(clips, tmp_path / "codes")
    run(clips, tmp_path / "others", FakeTokenizer("other"))
    shard = tmp_path / "codes" / "codes-00002-of-00006.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"codes-00002-of-00006\.parquet is damaged .*delete it, and run again"):
        run(clips, tmp_path / "codes")
    shard.write_bytes((tmp_path / "others" / shard.name).read_bytes())
    with pytest.raises(ValueError, match=r"codes-00002-of-00006\.parquet is not of this job"):
        run(clips, tmp_path / "codes")
    shard.unlink()
    assert run(clips, tmp_path / "codes").records == NUM_CLIPS


def test_two_calls_for_one_part_are_one_too_many(clips, tmp_path):
    codes, state = tmp_path / "codes", tmp_path / "codes" / ".job"
    state.mkdir(parents=True)
    with locked_file(state / "part-00000-of-00001"):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="being written by another process"):
                run(clips, codes, overwrite=overwrite)
    assert run(clips, codes).records == NUM_CLIPS


def test_nothing_is_removed_under_the_hands_of_another_call(clips, tmp_path):
    codes = tmp_path / "codes"
    run(clips, codes, num_shards=2, shard=1)
    with locked_file(codes / ".job" / "part-00001-of-00002"):
        with pytest.raises(ValueError, match="being written by another process"):
            run(clips, codes, overwrite=True)
        assert len(rows(codes)) == NUM_CLIPS // 2
    assert run(clips, codes, overwrite=True).resumed == 0


def test_a_shard_that_another_process_is_making_is_waited_for(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN_LOOKS", 0.05)
    held = tmp_path / "codes" / ".job" / "units" / "00002.jsonl"
    held.parent.mkdir(parents=True)
    lock = locked_file(held)
    lock.__enter__()
    threading.Timer(1.0, lambda: lock.__exit__(None, None, None)).start()
    assert run(clips, tmp_path / "codes").records == NUM_CLIPS
    assert len(rows(tmp_path / "codes")) == NUM_CLIPS


def test_a_full_disk_stops_the_job_by_name_and_leaves_nothing_half(clips, tmp_path, monkeypatch):
    codes = tmp_path / "codes"

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shard_files, "write_parquet", full)
        with pytest.raises(WorkerError, match=r"codes-0000\d-of-00006\.parquet: .*No space left on device"):
            run(clips, codes)
    assert shown_names(codes) == []
    assert run(clips, codes).records == NUM_CLIPS


def test_what_a_killed_writer_left_is_removed(clips, tmp_path):
    codes = tmp_path / "codes"
    with pytest.raises(WorkerError):
        run(clips, codes, FakeTokenizer(stop_after=0))
    (codes / ".codes-00001-of-00006.parquet.0a1b2c3d.tmp").write_bytes(b"half")
    run(clips, codes)
    assert list(codes.glob(".*.tmp")) == []


# --- bad records ------------------------------------------------------------------------------------------------------


def spoil(clips):
    (clips / "03.wav").write_bytes(b"")
    (clips / "07.wav").write_bytes((clips / "07.wav").read_bytes()[:-50])


def test_the_first_bad_clip_stops_the_job_by_name(clips, tmp_path):
    spoil(clips)
    with pytest.raises(AudioError, match=r"clips/0[37]\.wav: is (empty|truncated)"):
        run(clips, tmp_path / "codes")


def test_bad_clips_are_left_out_counted_and_listed(clips, tmp_path):
    spoil(clips)
    report = run(clips, tmp_path / "codes", skip_bad=True)
    assert (report.records, report.skipped) == (NUM_CLIPS - 2, 2)
    assert report.rejected == str(tmp_path / "codes.rejected.jsonl")
    listed = read_lines(tmp_path / "codes.rejected.jsonl")
    assert [(entry["shard"], entry["index"]) for entry in listed] == [
        ("codes-00001-of-00006.parquet", 3),
        ("codes-00003-of-00006.parquet", 7),
    ]
    assert [entry["reason"].split(" (")[0][:12] for entry in listed] == ["is empty", "is truncated"]
    assert run(clips, tmp_path / "codes", skip_bad=True).skipped == 2  # also where all is there


def test_damaged_tar_files_are_listed_and_the_others_done(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        write_tar(shards / f"{number}.tar", samples(4, first=4 * number))
    content = (shards / "1.tar").read_bytes()
    (shards / "1.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises(RecordError, match=r"1\.tar: clips/.*the file is damaged here"):
        run(shards, tmp_path / "strict")
    report = run(shards, tmp_path / "codes", skip_bad=True)
    assert (report.shards, report.skipped) == (3, 1)
    assert 8 < report.records < 12
    (entry,) = read_lines(tmp_path / "codes.rejected.jsonl")
    assert "1.tar" in entry["source"]
    assert "damaged" in entry["reason"]


def test_nothing_but_bad_records_is_an_error(clips, tmp_path):
    for path in clips.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"all 12 records are bad; .*codes\.rejected\.jsonl says why"):
        run(clips, tmp_path / "codes", skip_bad=True)
    assert len(open_manifest(tmp_path / "codes")) == 0


def test_an_id_that_comes_twice_is_refused_or_listed(clips, tmp_path):
    records = [{"id": f"r{index % 9}", "audio": f"{index:02d}.wav"} for index in range(NUM_CLIPS)]
    source = write_lines(clips / "clips.jsonl", records)
    with pytest.raises(
        RecordError, match=r"jsonl:10: its id is taken by .*jsonl:1; ids must differ \(3 such records\)"
    ):
        run(source, tmp_path / "codes")
    report = run(source, tmp_path / "codes", skip_bad=True)
    assert (report.records, report.skipped) == (9, 3)
    assert len({record["id"] for record in rows(tmp_path / "codes")}) == 9
    assert [entry["index"] for entry in read_lines(tmp_path / "codes.rejected.jsonl")] == [9, 10, 11]


def test_a_column_of_several_types_is_named(clips, tmp_path):
    records = [{"audio": f"{index:02d}.wav", "label": index % 2 or "zero"} for index in range(NUM_CLIPS)]
    source = write_lines(clips / "clips.jsonl", records)
    with pytest.raises(
        WorkerError, match=r"codes-0.*parquet cannot hold these records .*of one type, or write \.jsonl"
    ):
        run(source, tmp_path / "codes")


def test_keys_that_nothing_reads_are_named_once(clips, tmp_path, caplog):
    records = [{"audio": f"{index:02d}.wav", "transcirpt": "words"} for index in range(NUM_CLIPS)]
    run(write_lines(clips / "clips.jsonl", records), tmp_path / "codes")
    assert caplog.text.count("transcirpt (12 records)") == 1


# --- what kills workers -----------------------------------------------------------------------------------------------


def deaths(path, number, record=None):
    """Notes of workers that died on a unit."""
    for _ in range(number):
        tries = Tries(path)
        tries.begin()
        if record is not None:
            tries.at(record)


def test_only_tries_that_did_not_end_by_themselves_count(tmp_path):
    path = tmp_path / "notes.jsonl"
    deaths(path, 1)
    tries = Tries(path)
    tries.begin()
    tries.end("a bad record")
    assert (Tries(path).deaths, Tries(path).needs_care, Tries(path).killers) == (1, False, set())
    with open(path, "ab") as file:
        file.write(b'{"rec')  # a note that was cut off
    deaths(path, DEATHS_AT_A_RECORD, record=5)
    assert (Tries(path).deaths, Tries(path).needs_care, Tries(path).killers) == (3, True, {5})
    Tries(path).forget()
    assert Tries(path).deaths == 0


def test_a_record_that_kills_again_and_again_is_named_and_the_rest_of_its_shard_made(clips, tmp_path):
    with pytest.raises(WorkerError):
        run(clips, tmp_path / "codes", FakeTokenizer(stop_after=0))
    notes = tmp_path / "codes" / ".job" / "units" / "00002.jsonl"
    deaths(notes, DEATHS_BEFORE_CARE)
    deaths(notes, DEATHS_AT_A_RECORD, record=5)
    with pytest.raises(RecordError, match=r"clips\[5\]: kills the process that reads or encodes it"):
        run(clips, tmp_path / "codes")
    report = run(clips, tmp_path / "codes", skip_bad=True)
    assert (report.records, report.skipped) == (NUM_CLIPS - 1, 1)
    (entry,) = read_lines(tmp_path / "codes.rejected.jsonl")
    assert (entry["index"], entry["shard"]) == (5, "codes-00002-of-00006.parquet")
    assert not notes.exists()


def test_a_shard_on_which_workers_die_anywhere_is_given_up_by_name_after_all_others_are_done(clips, tmp_path):
    with pytest.raises(WorkerError):
        run(clips, tmp_path / "codes", FakeTokenizer(stop_after=0))
    deaths(tmp_path / "codes" / ".job" / "units" / "00002.jsonl", MOST_DEATHS)
    with pytest.raises(WorkerError, match=r"codes-00002-of-00006\.parquet could not be made: 10 workers died on it"):
        run(clips, tmp_path / "codes")
    assert len(rows(tmp_path / "codes")) == NUM_CLIPS - 2
    assert run(clips, tmp_path / "codes").records == NUM_CLIPS  # a new call tries once more


def test_with_care_records_go_one_by_one_and_the_codes_are_the_same(clips, tmp_path, monkeypatch):
    run(clips, tmp_path / "whole")
    monkeypatch.setattr(jobs.UnitWorker, "_tried", lambda self, unit, path, tries: _careful(self, unit, path, tries))
    tokenizer = FakeTokenizer()
    run(clips, tmp_path / "codes", tokenizer)
    assert rows(tmp_path / "codes") == rows(tmp_path / "whole")
    assert [len(lengths) for _, lengths in tokenizer.batches] == [1] * NUM_CLIPS


_tried = jobs.UnitWorker._tried


def _careful(worker, unit, path, tries):
    tries.deaths = DEATHS_BEFORE_CARE
    return _tried(worker, unit, path, tries)


# --- settings and figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"processes": 0}, "processes=0: use 1 or more"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_decoders": 0}, "num_decoders=0"),
        ({"shard_hours": 0.0}, "shard_hours=0.0: use a positive number"),
        ({"num_shards": 2, "shard": 2}, "shard=2 of num_shards=2"),
        ({"mono": "left"}, "mono='left'"),
        ({"ray": "auto", "device": "cpu"}, "device=cpu: Ray gives each"),
    ],
)
def test_settings_without_sense_are_refused_before_anything_is_made(clips, tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        run(clips, tmp_path / "codes", **options)
    assert not (tmp_path / "codes").exists()


def test_the_report_says_whether_the_encoder_or_the_decoders_waited(clips, tmp_path, monkeypatch):
    import time

    class Slow(FakeTokenizer):
        def encode(self, waveforms, sample_rate):
            time.sleep(0.1)
            return super().encode(waveforms, sample_rate)

    monkeypatch.setattr(encoding, "MAX_GATHERED_RECORDS", 1)
    report = run(clips, tmp_path / "codes", Slow(), num_decoders=1, shard_hours=1.0)
    assert report.encoder_idle_share < 0.5
    assert report.decoders_idle_share > 0.5

    def slow_load(self, part, load=encoding.CorpusEncoder._load):
        time.sleep(0.1)
        return load(self, part)

    monkeypatch.setattr(encoding.CorpusEncoder, "_load", slow_load)
    report = run(clips, tmp_path / "other", num_decoders=1, shard_hours=1.0)
    assert report.encoder_idle_share > 0.5
    assert report.decoders_idle_share < 0.5


def test_one_shard_is_decoded_while_another_is_encoded(clips, tmp_path, monkeypatch):
    """The decoders must not stand still between shards: the encoder is at one while the next one is read."""
    next_is_decoded = threading.Event()
    decoded = []

    class Watching(FakeTokenizer):
        def encode(self, waveforms, sample_rate):
            assert next_is_decoded.wait(20)
            return super().encode(waveforms, sample_rate)

    def watched(self, part, load=encoding.CorpusEncoder._load):
        decoded.append(part.path)
        if len(decoded) > 2:  # shards hold two clips
            next_is_decoded.set()
        return load(self, part)

    monkeypatch.setattr(encoding.CorpusEncoder, "_load", watched)
    assert run(clips, tmp_path / "codes", Watching()).records == NUM_CLIPS


def test_links_to_recordings_that_are_not_there_are_bad_records(clips, tmp_path):
    (clips / "07.wav").unlink()
    (clips / "07.wav").symlink_to(tmp_path / "not fetched" / "07.wav")
    with pytest.raises(AudioError, match=r"07\.wav: no such file"):
        run(clips, tmp_path / "stopped")
    report = run(clips, tmp_path / "codes", skip_bad=True)
    assert (report.records, report.skipped) == (NUM_CLIPS - 1, 1)


def test_a_split_of_recordings_is_refused(sources, tmp_path):
    for kind in ("folder", "list", "tar", "cuts"):
        with pytest.raises(ValueError, match=r"split=dev: .* is no data set with splits"):
            run(sources[kind], tmp_path / kind, split="dev")


def test_a_corpus_without_records_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar holds no records"):
        run(write_tar(tmp_path / "a.tar", {}), tmp_path / "codes", skip_bad=True)


def test_a_part_for_which_no_shard_is_left_ends_well(clips, tmp_path, caplog):
    for shard in range(9):
        report = run(clips, tmp_path / "codes", num_shards=9, shard=shard)
        assert bool(report.records) == (shard < len(list((tmp_path / "codes").glob("*.parquet"))))
    assert "fewer shards than parts" in caplog.text
    assert len(open_manifest(tmp_path / "codes")) == NUM_CLIPS


@pytest.mark.parametrize("name", ["plan.json", "job.json"])
def test_damaged_notes_of_a_job_are_named(clips, tmp_path, name):
    run(clips, tmp_path / "codes")
    (tmp_path / "codes" / ".job" / name).write_text("{")
    with pytest.raises(ValueError, match=rf"{name} is damaged .*set --overwrite"):
        run(clips, tmp_path / "codes")
    assert run(clips, tmp_path / "codes", overwrite=True).records == NUM_CLIPS
