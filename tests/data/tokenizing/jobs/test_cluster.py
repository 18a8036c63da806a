"""Ray as the one who says who does which shard: on two workers of this machine."""

import contextlib

import psutil
import pytest

from audiollm.data.tokenizing.jobs.job import tokenize_into_folder
from tests.data.tokenizing.jobs import killed_job
from tests.data.tokenizing.jobs.test_killing import check_whole, family, make_clips, started, wait_for

pytest.importorskip("ray", reason="needs pip install 'audiollm[cluster]'")
pytestmark = pytest.mark.slow


def end(processes):
    """Ends what a killed process has left; Ray's helpers outlive it for a while."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


def actors(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return [one for one in family(process) if "MapWorker" in " ".join(one.cmdline())]
    return []


def test_workers_and_then_the_driver_are_killed_and_another_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SECONDS_PER_CLIP", "0.3")
    clips, codes = make_clips(tmp_path / "clips", 60), tmp_path / "codes"
    options = {"skip_bad": True, "ray": "local", "processes": 2}
    process = started(clips, codes, **options)
    try:
        wait_for(lambda: len(list(codes.glob("*.parquet"))) >= 3)
        wait_for(lambda: actors(process))
        actors(process)[0].kill()
        num_done = len(list(codes.glob("*.parquet")))
        wait_for(lambda: len(list(codes.glob("*.parquet"))) >= num_done + 4)
        assert process.poll() is None
    finally:
        everyone = family(process)
        process.kill()
        process.wait()
        end(everyone)
    assert 0 < len(list(codes.glob("*.parquet"))) < 30
    assert started(clips, codes, **options).wait(1200) == 0
    check_whole(clips, codes)


def test_a_clip_that_kills_its_actors_is_named(tmp_path):
    clips, codes = make_clips(tmp_path / "clips", 10), tmp_path / "codes"
    (clips / "008.wav").write_bytes(killed_job.poison())
    process = started(clips, codes, skip_bad=True, ray="local", processes=2)
    try:
        assert process.wait(1200) == 0
    finally:
        end(family(process))
    listed = (tmp_path / "codes.rejected.jsonl").read_text().splitlines()
    assert [("005.wav" in line, "kills the process" in line) for line in listed] == [(True, False), (False, True)]


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path):
    clips = make_clips(tmp_path / "clips", 10)
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*ray start --head"):
        tokenize_into_folder(clips, killed_job.open_slow, tmp_path / "codes", ray="127.0.0.1:9", progress=False)
    with pytest.raises(ValueError, match=r"ray=nowhere: is no address .*give auto, local or HOST:PORT"):
        tokenize_into_folder(clips, killed_job.open_slow, tmp_path / "codes", ray="nowhere", progress=False)
