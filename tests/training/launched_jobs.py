"""Training programs under ``accelerate launch``, many of them in one launch: importing takes longer than a tiny run.

:class:`Launch` starts this file as users start a script, with a shipped configuration. Its processes import everything
once, then wait for jobs; of each job, every process runs the script in a child of its own, so that nothing of one run
is left for the next.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import torch
from torch.distributed import PrefixStore

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_CONFIGS = ROOT / "training" / "configs" / "accelerate"
POLL_SECONDS = 0.05
GRACE_SECONDS = 20  # for the other processes when one has failed: they may wait for it without end


def launcher(mode: str, *flags: str) -> list[str]:
    """The words of ``accelerate launch`` with a shipped configuration, at a free port."""
    words = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    return [*words, "--config_file", str(LAUNCH_CONFIGS / f"{mode}.yaml"), *flags]


def launch_environment(folder: Path) -> dict[str, str]:
    """The variables of a launch: none of another one's, one thread, and caches in ``folder``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    return inherited | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}


def launch_as_users_do(
    mode: str, script: str, config: Any, folder: Path, *flags: str
) -> subprocess.CompletedProcess[str]:
    """Launches a script once, by the command that users type; most tests share a :class:`Launch` instead."""
    path = folder / "run.json"
    path.write_text(json.dumps(dataclasses.asdict(config), ensure_ascii=False), encoding="utf-8")
    return subprocess.run(
        [*launcher(mode, *flags), script, "--config", str(path)],
        cwd=ROOT, env=launch_environment(folder), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


class Launch:
    """Processes that a shipped configuration starts, waiting for jobs; leaving the context stops them.

    Args:
        mode: name of a file of ``training/configs/accelerate``.
        folder: where jobs and what they say are kept.
        num_processes: how many the configuration starts.
    """

    def __init__(self, mode: str, folder: Path, num_processes: int) -> None:
        folder.mkdir(parents=True)
        self._mode, self._folder, self._num_processes = mode, folder, num_processes
        self._num_jobs = 0
        self.statuses: list[int] = []  # how the processes of the last job ended
        self._log = (folder / "launch.log").open("wb")
        self._process = subprocess.Popen(
            [*launcher(mode), __file__, str(folder), str(os.getpid())],
            cwd=ROOT, env=launch_environment(folder), stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.announce_end()
        self._end()
        self._log.close()

    def announce_end(self) -> None:
        """Tells the processes that there will be no further job."""
        (self._folder / "stop").touch()

    def _end(self) -> None:
        try:
            self._process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # not kill: the launcher must take its processes with it
            self._process.wait(timeout=60)

    @property
    def is_alive(self) -> bool:
        """Whether it takes further jobs."""
        return self._process.poll() is None

    def run(
        self,
        script: str,
        config: Any,
        timeout: float = 300,
        asked_to_stop: Mapping[int, int] = MappingProxyType({}),
        slowed: Mapping[int, float] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script on all processes.

        Args:
            script: its path in the repository.
            config: the dataclass that ``--config`` reads.
            timeout: seconds until the launch counts as stuck.
            asked_to_stop: processes that get SIGTERM, and at the end of which of their updates.
            slowed: processes that take longer for each update, and by how many seconds.

        Returns:
            The first exit status that is not zero, and what all processes wrote to stderr.
        """
        number, self._num_jobs = self._num_jobs, self._num_jobs + 1
        settings = self._folder / f"{number}.config.json"
        settings.write_text(json.dumps(dataclasses.asdict(config), ensure_ascii=False), encoding="utf-8")
        _put(
            self._folder / f"{number}.job",
            json.dumps([[script, "--config", str(settings)], dict(asked_to_stop), dict(slowed)]),
        )
        reports = [self._folder / f"{number}.{rank}.status" for rank in range(self._num_processes)]
        deadline = time.monotonic() + timeout
        while not all(report.exists() for report in reports):
            failed = any(report.exists() and int(report.read_text()) for report in reports)
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS) if failed else deadline
            if time.monotonic() > deadline or not self.is_alive:
                self.announce_end()
                self._end()
                break
            time.sleep(POLL_SECONDS)
        self.statuses = [int(report.read_text()) if report.exists() else -9 for report in reports]
        said = [path.read_text() for path in sorted(self._folder.glob(f"{number}.*.stderr"))]
        log = "" if self.is_alive else (self._folder / "launch.log").read_text()
        return subprocess.CompletedProcess(
            [self._mode, script], next((status for status in self.statuses if status), 0), stderr=log + "\n".join(said)
        )


class Launches:
    """One :class:`Launch` per configuration, started when first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._running: dict[str, Launch] = {}

    def run(self, mode: str, script: str, config: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a script under a shipped configuration; see :meth:`Launch.run`."""
        if mode not in self._running or not self._running[mode].is_alive:
            folder = self._folder / f"{mode}-{next(self._numbers)}"
            self._running[mode] = Launch(mode, folder, 1 if mode == "single" else 2)
        return self._running[mode].run(script, config, **options)

    def statuses(self, mode: str) -> list[int]:
        """How each process of the last job under a configuration ended."""
        return self._running[mode].statuses

    def stop(self) -> None:
        for launch in self._running.values():
            launch.announce_end()  # all of them first: leaving takes seconds
        for launch in self._running.values():
            with launch:
                pass


def _put(path: Path, text: str) -> None:
    """Writes a file that appears whole."""
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").rename(path)


# --- what is launched -------------------------------------------------------------------------------------------------


def is_over(folder: Path, driver: int) -> bool:
    """Whether there will be no further job, also because the tests were killed."""
    return (folder / "stop").exists() or not Path(f"/proc/{driver}").exists()


def wait_for_end(child: int, folder: Path, driver: int) -> int:
    """The exit status of a child, which is killed if nobody waits for it any more."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if is_over(folder, driver):
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def ask_to_stop(after: int) -> None:
    """Sends SIGTERM to this process at the end of an update."""
    from audiollm.training.loop.stopping import StopRequest

    answer, updates = StopRequest.is_asked_of_anyone, itertools.count(1)

    def asked(self: Any, accelerator: Any) -> bool:
        if next(updates) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(self, accelerator)

    StopRequest.is_asked_of_anyone = asked  # type: ignore[method-assign]


def be_slow(seconds: float) -> None:
    """Makes this process wait at the end of each update."""
    from audiollm.training.loop.run import TrainingRun

    save_if_due = TrainingRun.save_if_due

    def slow(self: Any, step: int) -> None:
        time.sleep(seconds)
        save_if_due(self, step)

    TrainingRun.save_if_due = slow  # type: ignore[method-assign]


def run_child(
    folder: Path, number: int, rank: str, arguments: list[str], stops_after: int | None, slower_by: float | None
) -> None:
    """Becomes the program; never returns."""
    if stops_after is not None:
        ask_to_stop(stops_after)
    if slower_by is not None:
        be_slow(slower_by)
    torch.set_num_threads(1)  # replaces the thread pool that fork left broken
    # Processes find each other through the launcher's store, which still holds the addresses of earlier jobs.
    rendezvous: Any = sys.modules["torch.distributed.rendezvous"]  # the package hides it behind a function of its name
    create = rendezvous._create_c10d_store
    rendezvous._create_c10d_store = lambda *args, **kwargs: PrefixStore(f"job_{number}", create(*args, **kwargs))
    with (folder / f"{number}.{rank}.stderr").open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
    sys.argv = arguments
    sys.path[0] = str(ROOT / Path(arguments[0]).parent)  # as for a script that Python starts
    status = 0
    try:
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except BaseException:
        status = 1
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    folder, driver, rank = Path(sys.argv[1]), int(sys.argv[2]), os.environ.get("RANK", "0")
    import audiollm.training.sft
    import audiollm.training.train_decoder
    import audiollm.training.train_tokenizer  # noqa: F401  # for the children, which need not import it again

    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed  # noqa: F401
    for number in itertools.count():
        job = folder / f"{number}.job"
        while not job.exists():
            if is_over(folder, driver):
                return
            time.sleep(POLL_SECONDS)
        child = os.fork()
        if child == 0:
            arguments, asked_to_stop, slowed = json.loads(job.read_text())
            run_child(folder, number, rank, arguments, asked_to_stop.get(rank), slowed.get(rank))
        _put(folder / f"{number}.{rank}.status", str(wait_for_end(child, folder, driver)))


if __name__ == "__main__":
    main()
