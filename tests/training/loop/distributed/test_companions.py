"""What processes notice of each other: connections in one process stand for those between several."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from audiollm.training.loop.distributed import companions as module
from audiollm.training.loop.distributed.companions import Companions

from ...launched_jobs import ROOT, launch_environment


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> dict[int, Companions]:
    """Three processes: the first one, and two that are connected to it."""
    monkeypatch.setattr(module, "GRACE_SECONDS", {"died": 3600.0, "failed": 3600.0})
    pairs = {rank: socket.socketpair() for rank in (1, 2)}
    first = Companions({rank: ours for rank, (ours, _) in pairs.items()}, 0)
    return {0: first} | {rank: Companions({0: theirs}, rank) for rank, (_, theirs) in pairs.items()}


def test_all_hear_of_one_that_dies(three: dict[int, Companions]) -> None:
    three[2]._sockets[0].shutdown(socket.SHUT_RDWR)  # as the system does for a dead process
    for rank in (0, 1):
        told = three[rank].reason(10)
        assert told is not None
        assert told.startswith("process 2 is gone: it died")
        assert "--resume latest" in told


def test_all_hear_of_the_first_one_that_dies(three: dict[int, Companions]) -> None:
    three[0]._present.clear()
    three[0]._has_ended.set()
    three[0]._thread.join()  # the dead listen no more
    for connection in three[0]._sockets.values():
        connection.shutdown(socket.SHUT_RDWR)
    for rank in (1, 2):
        assert "process 0 is gone" in (three[rank].reason(10) or "")


def test_one_that_ends_with_an_error_is_told_as_that(three: dict[int, Companions]) -> None:
    three[1].end("failed")
    for rank in (0, 2):
        assert "process 1 ended with an error" in (three[rank].reason(10) or "")


def test_the_end_of_a_run_is_no_loss(three: dict[int, Companions]) -> None:
    for rank in (2, 1, 0):
        three[rank].end("ended")
    assert [one.reason(0.1) for one in three.values()] == [None, None, None]


def start(rank: int, port: int, flags: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A process of a run, as if on a machine of its own: no launcher watches it."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    environment = launch_environment(folder) | place
    with (folder / f"{rank}.log").open("wb") as log:
        command = [sys.executable, "training/sft.py", *flags]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_within_a_minute(make_config: Any, tmp_path: Path, killed: int) -> None:
    config = make_config()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = ["--model", config.model, "--train_data", config.train_data, "--output_dir", config.output_dir]
    flags += ["--max_steps", "100000", "--global_batch_size", "8", "--micro_batch_size", "2"]
    processes = [start(rank, port, flags, tmp_path) for rank in (0, 1)]
    try:
        deadline = time.monotonic() + 300
        metrics = Path(config.output_dir) / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline, (tmp_path / "0.log").read_text()[-2000:]
            time.sleep(0.1)
        os.kill(processes[killed].pid, signal.SIGKILL)
        started = time.monotonic()
        assert processes[1 - killed].wait(timeout=120) == 1
        assert time.monotonic() - started < 60
        assert f"error: process {killed} is gone: it died" in (tmp_path / f"{1 - killed}.log").read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()
