"""Units done by several processes of this machine; one that dies is replaced."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from .plan import Unit
from .work import Job, OpenAudioTokenizer, UnitResult, WorkerError
from .worker import UNITS_AT_ONCE, UnitWorker

MOST_DEATHS_AT_START = 3  # in a row, of processes that never did anything
SECONDS_TO_END = 5.0
_STARTED, _READY = "started", "ready"
logger = logging.getLogger(__name__)


@dataclass
class _Process:
    """A worker process, and what it was given."""

    number: int
    process: BaseProcess
    connection: Connection
    is_ready: bool = False
    units: dict[int, Unit] = field(default_factory=dict)


class LocalProcesses:
    """Does units in processes of this machine, which end with it.

    Args:
        job: what is to be done.
        open_audio_tokenizer: loads the encoder, in each process.
        num_workers: processes.
        device: of the encoders; None: the processes share the GPUs, or the CPU's cores.
    """

    def __init__(
        self, job: Job, open_audio_tokenizer: OpenAudioTokenizer, num_workers: int, device: str | None
    ) -> None:
        self.num_workers = num_workers
        self._job, self._open, self._device = job, open_audio_tokenizer, device
        self._context = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork
        self._deaths_at_start = 0

    def run(self, units: Sequence[Unit]) -> Generator[UnitResult, None, None]:
        """Yields what becomes of each unit, as they end. Those that a process had when it died come last, once more.

        Raises:
            WorkerError: processes cannot start.
        """
        waiting = deque(units)
        processes = [self._start(number) for number in range(min(self.num_workers, len(units)))]
        try:
            while waiting or any(process.units for process in processes):
                for process in processes:
                    _hand_out(process, waiting)
                ready = set(wait([handle for p in processes for handle in (p.connection, p.process.sentinel)]))
                for index, process in enumerate(processes):
                    if ready & {process.connection, process.process.sentinel}:
                        is_alive = yield from self._results_of(process)
                        if not is_alive:
                            waiting.extend(self._buried(process))
                            processes[index] = self._start(process.number)
        finally:
            for process in processes:
                process.connection.close()  # which ends it
            for process in processes:
                process.process.join(SECONDS_TO_END)
                if process.process.is_alive():
                    process.process.kill()
                    process.process.join()

    def _start(self, number: int) -> _Process:
        ours, theirs = self._context.Pipe()
        device = self._device
        if device is None and torch.cuda.is_available():
            device = f"cuda:{number % torch.cuda.device_count()}"
        num_threads = max(1, torch.get_num_threads() // self.num_workers)
        # The job follows by the connection: starting would wait forever for a process that is killed before it has read
        # more than a pipe holds.
        process = self._context.Process(target=_serve, args=(theirs, device, num_threads), daemon=True)
        process.start()
        theirs.close()
        return _Process(number, process, ours)

    def _results_of(self, process: _Process) -> Generator[UnitResult, None, bool]:
        """Yields what a process has sent; returns whether it lives."""
        try:
            while process.connection.poll():
                message = process.connection.recv()
                if message == _STARTED:
                    process.connection.send((self._job, self._open))
                elif message == _READY:
                    process.is_ready, self._deaths_at_start = True, 0
                elif isinstance(message, str):
                    raise WorkerError(message)
                else:
                    del process.units[message.number]
                    yield message
        except (EOFError, OSError):
            return False
        return process.process.is_alive()

    def _buried(self, process: _Process) -> list[Unit]:
        """The units that a dead process had. How often they killed theirs, their notes say (`Tries`).

        Raises:
            WorkerError: processes die before they do anything.
        """
        process.connection.close()
        process.process.join()
        how = _ending(process.process.exitcode)
        if not process.is_ready:
            self._deaths_at_start += 1
            if self._deaths_at_start >= MOST_DEATHS_AT_START:
                raise WorkerError(
                    f"a worker process {how} while it loaded the audio tokenizer, {self._deaths_at_start} times in a "
                    "row: use fewer processes, or another device"
                )
        logger.warning("a worker process %s; another one takes its place", how)
        return list(process.units.values())


def _hand_out(process: _Process, waiting: deque[Unit]) -> None:
    """Gives a process as much as it works on at once."""
    while process.is_ready and waiting and len(process.units) < UNITS_AT_ONCE:
        unit = waiting.popleft()
        process.units[unit.number] = unit
        try:
            process.connection.send(unit)
        except OSError:  # it has died, which its sentinel tells
            return


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            return f"was killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"was killed by signal {-exit_code}"
    return f"ended with status {exit_code}"


def _serve(connection: Connection, device: str | None, num_threads: int) -> None:
    """What a worker process does: the job comes in, then units, and results go out, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(num_threads)
    lock = threading.Lock()

    def send(message: UnitResult | str) -> None:
        with lock:
            connection.send(message)

    def do(unit: Unit) -> None:
        try:
            send(worker(unit))
        except Exception as error:  # such as a full disk, on which no note of the try can be made
            send(f"{job.shard_path(unit)}: {error}")

    send(_STARTED)
    try:
        job, open_audio_tokenizer = connection.recv()
    except (EOFError, OSError):  # all has been done without this one
        return
    worker = UnitWorker(job, open_audio_tokenizer, device)
    try:
        worker.load()
    except Exception as error:
        logger.info("the audio tokenizer cannot be loaded", exc_info=True)
        send(f"the audio tokenizer cannot be loaded: {error}")
        return
    send(_READY)
    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        while True:
            try:
                unit = connection.recv()
            except (EOFError, OSError):
                worker.stop()
                return
            pool.submit(do, unit)


def _end_with_parent() -> None:
    """Ends this process with the one that started it, even if that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    wait([parent.sentinel])
    os._exit(1)
