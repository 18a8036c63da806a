"""Processes that notice when one of them dies, or its machine is lost: then all of them end, and say so.

Without this they wait in the next exchange for as long as the process group is patient, half an hour or more; and it
must be that patient, since one of them may write a large model while the others wait. Each process holds a connection
to the first one. The system closes it when its owner dies, and asks for a machine's sign of life (TCP keepalive) when
nothing is said, so that a process that is merely busy, however long, is never taken for a dead one.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from audiollm.program import ProgramError

CONNECT_SECONDS = 30.0
# Of a machine that is silent: asked after 10 s, then every 5 s, and given up after 4 questions.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
# Until this process is ended from outside: exchanges with a process that died fail by themselves on most systems, and
# an error that all processes run into has the better message in each of them.
GRACE_SECONDS = {"died": 5.0, "failed": 15.0}
_FAREWELL_SECONDS = 10.0  # until the first process leaves without having heard of the others
_WORDS = {
    "died": "is gone: it died, or its machine cannot be reached",
    "failed": "ended with an error",
}


class LostProcessError(ProgramError):
    """Another process of the run died."""


class Companions:
    """Connections between the first process and all others.

    Args:
        sockets: to the other processes by their number; a process other than the first one has one, to the first.
        rank: number of this process.
    """

    def __init__(self, sockets: dict[int, socket.socket], rank: int) -> None:
        self._sockets = sockets
        self._rank = rank
        self._selector = selectors.DefaultSelector()
        for other, connection in sockets.items():
            self._selector.register(connection, selectors.EVENT_READ, (other, bytearray()))
        self._has_ended = threading.Event()
        self._reason = threading.Event()
        self._told = ""
        self._present = set(sockets)
        self._thread = threading.Thread(target=self._listen, name="companions", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        deadline: float | None = None
        while not (self._has_ended.is_set() and not self._present):
            for key, _ in self._selector.select(timeout=0.2):
                how = self._hear(key)
                if how is not None and deadline is None:
                    deadline = time.monotonic() + GRACE_SECONDS[how]
            if deadline is not None and not self._has_ended.is_set() and time.monotonic() > deadline:
                # This process waits for the lost one inside of torch, where no exception reaches it.
                sys.stderr.write(f"\nerror: {self._told}\n")
                sys.stderr.flush()
                os._exit(LostProcessError.status)

    def _hear(self, key: selectors.SelectorKey) -> str | None:
        """Reads what a process says, or that it is gone; returns how one was lost, if one was."""
        other, heard = key.data
        try:
            said = key.fileobj.recv(4096)  # type: ignore[union-attr]
        except OSError:  # reset, or no sign of life
            said = b""
        heard += said
        *lines, rest = bytes(heard).split(b"\n")
        heard[:] = rest
        lost = None
        for line in lines:
            message = json.loads(line)
            if message["state"] != "ended":
                lost = self._lose(message["rank"], message["state"])
            if message["rank"] == other:
                self._leave(key)
        if not said and other in self._present:
            self._leave(key)
            lost = self._lose(other, "died")
        return lost

    def _leave(self, key: selectors.SelectorKey) -> None:
        self._present.discard(key.data[0])
        with suppress(KeyError):  # it has said farewell, and then closed
            self._selector.unregister(key.fileobj)

    def _lose(self, rank: int, how: str) -> str:
        if not self._reason.is_set():
            self._told = (
                f"process {rank} {_WORDS[how]}. What it said itself is above or in its log; all others end, too. "
                "--resume latest goes on from the last checkpoint"
            )
            self._reason.set()
            if self._rank == 0:
                self._tell(rank, how)
        return how

    def _tell(self, rank: int, state: str) -> None:
        line = json.dumps({"rank": rank, "state": state}).encode() + b"\n"
        for connection in self._sockets.values():
            with suppress(OSError):  # who is gone need not hear it
                connection.sendall(line)

    def reason(self, seconds: float) -> str | None:
        """Why an exchange has failed: which process was lost, as soon as that is known; None if none was."""
        return self._told if self._reason.wait(seconds) else None

    def end(self, state: str) -> None:
        """Tells the others that this process leaves, ``ended`` or ``failed``, and stops listening."""
        self._tell(self._rank, state)
        self._has_ended.set()
        # The first process stays until all have said farewell, or else its end would look like a loss to them.
        self._thread.join(_FAREWELL_SECONDS if self._rank == 0 else 0.5)
        for connection in self._sockets.values():
            connection.close()


@contextmanager
def companions(accelerator: Accelerator) -> Iterator[None]:
    """Ends every process of a run when one of them is lost, within a minute.

    Raises:
        LostProcessError: in place of what torch raises in an exchange with a process that is gone.
    """
    if accelerator.num_processes == 1:
        yield
        return
    others = Companions(_connect(accelerator), accelerator.process_index)
    try:
        yield
    except RuntimeError as error:
        reason = None if isinstance(error, ProgramError) else others.reason(sum(GRACE_SECONDS.values()))
        others.end("failed")
        if reason is not None:
            raise LostProcessError(reason) from error
        raise
    except BaseException:
        others.end("failed")
        raise
    others.end("ended")


def _connect(accelerator: Accelerator) -> dict[int, socket.socket]:
    """Connects all processes to the first one; whoever else finds its port does not know the word."""
    if accelerator.process_index != 0:
        [port, word] = broadcast_object_list([None, None])
        host = os.environ.get("MASTER_ADDR", "127.0.0.1")
        connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        connection.sendall(json.dumps({"rank": accelerator.process_index, "word": word}).encode() + b"\n")
        return {0: _kept_alive(connection)}
    word = secrets.token_hex(16)
    with socket.create_server(("", 0)) as server:
        server.settimeout(CONNECT_SECONDS)
        broadcast_object_list([server.getsockname()[1], word])
        found: dict[int, socket.socket] = {}
        while len(found) < accelerator.num_processes - 1:
            connection, _ = server.accept()
            greeting = _greeting(connection)
            if greeting.get("word") == word:
                found[int(greeting["rank"])] = _kept_alive(connection)
            else:
                connection.close()
    return found


def _greeting(connection: socket.socket) -> dict[str, Any]:
    connection.settimeout(CONNECT_SECONDS)
    try:
        with connection.makefile("rb") as file:
            greeting = json.loads(file.readline(1024))
    except (OSError, ValueError):  # nobody of ours
        return {}
    return greeting if isinstance(greeting, dict) else {}


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # Linux has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
