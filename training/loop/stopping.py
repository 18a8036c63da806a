"""A run that is asked to stop: SIGTERM, as schedulers send it before they kill, SIGUSR1, as SLURM can send earlier, and
SIGINT, as Ctrl-C sends it.

The update that is being made is finished, a checkpoint is written, and the program ends with status 143. Before the
first update there is nothing to save: the program ends at once, with the same status. Who presses Ctrl-C once more
does not want to wait, and gets no checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator

from audiollm.program import ProgramError

STATUS = 128 + signal.SIGTERM
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


class RunStoppedError(ProgramError):
    """The run was asked to stop, and did so at a place from which it can go on."""

    status = STATUS


class StopRequest:
    """Whether this run has been asked to stop."""

    def __init__(self) -> None:
        self._is_updating = False
        self._is_asked = False
        self._is_interrupted = False

    def updates_begin(self) -> None:
        """From here on a signal is kept until the update that is being made is over."""
        self._is_updating = True

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Handles the signal."""
        if not self._is_updating:
            raise RunStoppedError(f"stopped by {signal.Signals(number).name} before the first update; nothing was lost")
        if number == signal.SIGINT:
            if self._is_interrupted:
                raise RunStoppedError(
                    "stopped at once, without a checkpoint; --resume latest goes on from the last one"
                )
            self._is_interrupted = True
            if os.environ.get("RANK", "0") == "0":  # not through Python's streams, in whose midst a signal may come
                os.write(2, b"\nstopping after this update, with a checkpoint; once more stops at once\n")
        self._is_asked = True

    def is_asked_of_anyone(self, accelerator: Accelerator) -> bool:
        """The same answer on every process, so that all stop after the same update; all call it."""
        if accelerator.num_processes == 1:
            return self._is_asked
        asked = torch.tensor(float(self._is_asked), device=accelerator.device)
        return bool(accelerator.reduce(asked, "sum") > 0)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listens to the signals while the block lasts; in threads other than the main one Python lets nobody do so."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
