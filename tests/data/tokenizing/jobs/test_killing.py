"""Whatever is killed, whenever: no clip is lost, none comes twice, and what kills its workers is named."""

import contextlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest

from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.jobs.job import tokenize_into_folder
from audiollm.data.tokenizing.jobs.work import WorkerError
from tests.data.tokenizing.corpora import sound
from tests.data.tokenizing.jobs import killed_job
from tests.data.tokenizing.test_corpus import FakeTokenizer, expected_codes, read_lines

ROOT = Path(__file__).resolve().parents[4]


def make_clips(folder, count):
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:03d}.wav").write_bytes(sound(0.2, seed=index))
    (folder / "005.wav").write_bytes(b"RIFF and nothing")
    return folder


def check_whole(clips, codes):
    """Each clip is there once, with its own codes, or is listed as bad."""
    rows = [row for path in sorted(codes.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]
    bad = [entry["index"] for entry in read_lines(codes.with_name(f"{codes.name}.rejected.jsonl"))]
    names = sorted(path.name for path in clips.iterdir())
    assert [row["id"] for row in rows] == [name for index, name in enumerate(names) if index not in bad]
    assert bad == [5]
    for row in rows:
        assert row["codes"] == expected_codes(clips / row["id"])
    assert [path for path in codes.glob(".*") if path.name != ".job"] == []


def test_a_process_that_is_killed_at_random_moments_loses_nothing(tmp_path):
    clips, codes = make_clips(tmp_path / "clips", 60), tmp_path / "codes"
    moments = random.Random(0)
    fork = multiprocessing.get_context("fork")  # which starts in no time, if all is imported that the job imports
    options = {"skip_bad": True}
    killed_job.tokenize(clips, tmp_path / "tried", **options)
    for _ in range(6):
        process = fork.Process(target=killed_job.tokenize, args=(clips, codes), kwargs=options)
        process.start()
        time.sleep(moments.uniform(0.05, 0.5))
        process.kill()
        process.join()
    killed_job.tokenize(clips, codes, **options)
    check_whole(clips, codes)


def started(clips, codes, **options):
    command = [sys.executable, "-m", killed_job.__name__, str(clips), str(codes), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def family(process):
    """A process and all that it started."""
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_for(condition, seconds=400):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.multiprocess
def test_workers_end_with_the_process_that_started_them_and_another_run_goes_on(tmp_path):
    clips, codes = make_clips(tmp_path / "clips", 40), tmp_path / "codes"
    process = started(clips, codes, skip_bad=True, processes=2)
    wait_for(lambda: list(codes.glob("*.parquet")))
    workers = family(process)[1:]
    process.kill()
    process.wait()
    psutil.wait_procs(workers, timeout=30)
    assert not [worker for worker in workers if worker.is_running()]
    killed_job.tokenize(clips, codes, skip_bad=True)
    check_whole(clips, codes)


def opened(device, note):
    return killed_job.open_slow(device)


def kill_first_worker():
    """Kills a worker before it has read a byte of what it is given."""
    me, deadline = psutil.Process(), time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in me.children():
            with contextlib.suppress(psutil.Error):
                if any("spawn_main" in word for word in child.cmdline()):
                    child.kill()
                    return
        time.sleep(0.001)


@pytest.mark.multiprocess
def test_a_worker_that_is_killed_while_it_starts_is_replaced(tmp_path):
    clips, codes = make_clips(tmp_path / "clips", 10), tmp_path / "codes"
    more_than_a_pipe_holds = partial(opened, note="x" * 2_000_000)
    killer = threading.Thread(target=kill_first_worker)
    killer.start()
    tokenize_into_folder(clips, more_than_a_pipe_holds, codes, processes=1, skip_bad=True, progress=False)
    killer.join()
    check_whole(clips, codes)


@pytest.mark.slow
def test_twenty_random_kills_of_any_process_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SECONDS_PER_CLIP", "0.2")  # or all would be done before the last kill
    clips, codes = make_clips(tmp_path / "clips", 1000), tmp_path / "codes"
    moments = random.Random(1)
    num_kills, process = 0, None
    while num_kills < 20:
        if process is None or process.poll() is not None:
            assert process is None or process.returncode != 0, "the job ended before it was killed 20 times"
            process = started(clips, codes, skip_bad=True, processes=2)
        time.sleep(moments.uniform(0.0, 8.0))
        living = family(process)
        if living:
            moments.choice(living).kill()
            num_kills += 1
    if process.poll() is None:
        process.wait(600)
    monkeypatch.delenv("SECONDS_PER_CLIP")
    if process.returncode:
        assert started(clips, codes, skip_bad=True, processes=2).wait(600) == 0
    check_whole(clips, codes)


@pytest.mark.slow
def test_a_clip_that_kills_its_workers_is_named_and_all_others_are_done(tmp_path):
    clips, codes = make_clips(tmp_path / "clips", 20), tmp_path / "codes"
    (clips / "013.wav").write_bytes(killed_job.poison())
    report = killed_job.tokenize(clips, codes, skip_bad=True, processes=2)
    assert (report.records, report.skipped) == (18, 2)
    assert [entry["index"] for entry in read_lines(tmp_path / "codes.rejected.jsonl")] == [5, 13]
    assert "kills the process that reads or encodes it" in (tmp_path / "codes.rejected.jsonl").read_text()
    (clips / "005.wav").write_bytes(sound(0.2))
    with pytest.raises(RecordError, match=r"clips\[13\]: kills the process"):
        killed_job.tokenize(clips, tmp_path / "strict", processes=2)


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_job_with_the_reason(tmp_path):
    clips = make_clips(tmp_path / "clips", 10)
    with pytest.raises(
        WorkerError, match="was killed by SIGKILL while it loaded the audio tokenizer, 3 times in a row"
    ):
        tokenize_into_folder(clips, killed_job.open_dead, tmp_path / "codes", processes=2, progress=False)


@pytest.mark.multiprocess
def test_a_worker_with_another_audio_tokenizer_ends_the_job(tmp_path):
    clips = make_clips(tmp_path / "clips", 10)
    with pytest.raises(
        WorkerError, match=r"cannot be loaded: the audio tokenizer on .* is another one \(None\) than the job's"
    ):
        tokenize_into_folder(clips, open_different, tmp_path / "codes", processes=1, progress=False)


def open_different(device):
    return FakeTokenizer(str(device))
