"""Sounds in a process of their own, whose steps and the language model's do not wait for one interpreter.

Both call many small operations. In one process they take turns at Python's lock for each of them, so that two cores do
little more than one.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import pickle
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from audiollm.generation.decoding import SpeechDecoder
from audiollm.serving.engines.base import EngineError

from .sound_threads import SoundThread, SoundThreads, Tell

logger = logging.getLogger(__name__)

_STARTING_SECONDS = 120.0
_CLOSING_SECONDS = 5.0
_MAX_ATTEMPTS = 3


class SoundProcess:
    """A process that decodes, and what it is asked; a process that has ended is replaced by the next sound's.

    Args:
        max_streams: sounds that are decoded at once; more wait.
    """

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._model = b""
        self._numbers = count()
        self._lock = threading.Lock()  # over all that follows
        self._tells: dict[int, Tell] = {}  # of the sounds in the making
        self._process: Any = None
        self._listener: Any = None
        self._connection: Connection | None = None
        self._is_closed = False
        self._why_not = "it has not been started"

    def start(self, model: Any) -> None:
        """Begins, and waits until the process is ready.

        Args:
            model: what decodes: a tokenizer or its decoder.

        Raises:
            EngineError: if the process does not begin.
        """
        self._model = _pickled(model)
        self._begin()

    def open(self, decoder: SpeechDecoder, tell: Tell) -> RemoteSound:
        """Begins a sound whose codes come one after the other."""
        return RemoteSound(self._ask, self._number_of(tell), decoder)

    def whole(self, decoder: SpeechDecoder, codes: Tensor, tell: Tell) -> None:
        """Decodes codes, int64 ``[T]``, that are all there; ``tell`` gets all samples, or an error."""
        self._ask("whole", self._number_of(tell), decoder.bound_to(None), codes.numpy())

    def close(self) -> None:
        """Ends the process, which is given some seconds for what it is at."""
        with self._lock:
            self._is_closed = True
            connection, process, listener = self._connection, self._process, self._listener
        if connection is not None:
            with suppress(OSError):  # it has ended already
                _send(connection, None)
        if process is not None:
            # The listener alone asks for the exit status: of two that ask at once, one is told nothing.
            if not wait([process.sentinel], _CLOSING_SECONDS):
                process.kill()
            listener.join(_CLOSING_SECONDS)

    def _number_of(self, tell: Tell) -> int:
        with self._lock:
            number = next(self._numbers)
            self._tells[number] = tell
        return number

    def _ask(self, what: str, number: int, *more: Any) -> None:
        """Sends a message; where nobody is there to read it, the sound is told."""
        with self._lock:
            if what == "leave":
                self._tells.pop(number, None)
            try:
                if self._connection is None:
                    raise EngineError(self._why_not)
                _send(self._connection, (what, number, *more))
                return
            except (OSError, EngineError) as error:
                tell, told = self._tells.pop(number, None), error
        if tell is not None:
            tell(EngineError(f"the sound cannot be made: {told}"))

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._max_streams), name="audiollm-sound", daemon=True)
        process.start()
        theirs.close()
        try:
            ours.send_bytes(self._model)
            if not ours.poll(_STARTING_SECONDS):
                raise EngineError(f"it was not ready after {_STARTING_SECONDS:g} s")
            _receive(ours)
        except (OSError, EOFError, EngineError) as error:
            _end(process)
            raise EngineError(
                f"the process that makes sound did not begin (exit status {process.exitcode}): {error}"
            ) from error
        listener = threading.Thread(target=self._listen, args=(ours, process), name="audiollm-sounds", daemon=True)
        with self._lock:
            self._process, self._connection, self._listener = process, ours, listener
            listener.start()
            if self._is_closed:
                _send(ours, None)

    def _listen(self, connection: Connection, process: Any) -> None:
        """Hands on what a process says, to its end; then begins another, unless that was meant."""
        with suppress(OSError, EOFError):
            while True:
                number, what = _receive(connection)
                with self._lock:
                    tell = self._tells.get(number) if isinstance(what, np.ndarray) else self._tells.pop(number, None)
                if tell is not None:
                    tell(torch.from_numpy(what) if isinstance(what, np.ndarray) else what)
        _end(process)
        with self._lock:
            tells, self._tells = list(self._tells.values()), {}
            self._connection, is_closed = None, self._is_closed
            self._why_not = "the server ends" if is_closed else "the process for it begins anew: ask again"
        connection.close()
        for tell in tells:
            tell(EngineError(f"the process that makes sound has ended (exit status {process.exitcode})"))
        if not is_closed:
            logger.error("the process that makes sound has ended (exit status %s): another begins", process.exitcode)
            self._begin_again()

    def _begin_again(self) -> None:
        for attempt in range(_MAX_ATTEMPTS):
            time.sleep(attempt)
            try:
                self._begin()
                return
            except EngineError as error:
                logger.error("%s", error)
        self._why_not = f"the process for it did not begin, {_MAX_ATTEMPTS} times: start the server again"


def _end(process: Any) -> None:
    """Waits for the end of a process, and ends it where it takes long."""
    process.join(_CLOSING_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _pickled(model: Any) -> bytes:
    file = io.BytesIO()
    _ModelPickler(file).dump(model)
    return file.getvalue()


class _ModelPickler(pickle.Pickler):
    """Takes modules with parametrizations too, such as the weight norm of most codecs, which refuse to be pickled.

    For decoding, the weights that they come to are all that is needed.
    """

    def reducer_override(self, one: Any) -> Any:
        if isinstance(one, nn.Module) and is_parametrized(one):
            plain = _without_parametrizations(one)
            return object.__new__, (type(plain),), vars(plain)
        return NotImplemented


def _without_parametrizations(module: nn.Module) -> nn.Module:
    """The same module with weights of its own; the other one stays as it is."""
    parametrized: Any = module.parametrizations
    weights = {name: nn.Parameter(getattr(module, name).detach(), requires_grad=False) for name in parametrized}
    kind = type_before_parametrizations(module)
    plain: nn.Module = object.__new__(kind)
    plain.__dict__.update(vars(module))
    plain._modules = {name: one for name, one in module._modules.items() if one is not parametrized}
    plain._parameters = {**module._parameters, **weights}
    # That of weight norm reads older names, and is no function to send.
    plain._load_state_dict_pre_hooks = OrderedDict()
    return plain


def _send(connection: Connection, message: Any) -> None:
    # Not by the connection's own way, in which torch shares memory that containers have little of.
    connection.send_bytes(pickle.dumps(message))


def _receive(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())


class RemoteSound:
    """One sound in the making, in another process.

    Args:
        ask: sends a message there.
        number: of the sound.
        decoder: whose voice it is.
    """

    def __init__(self, ask: Callable[..., None], number: int, decoder: SpeechDecoder) -> None:
        self._ask, self._number = ask, number
        ask("open", number, decoder.bound_to(None))

    def feed(self, codes: Tensor) -> None:
        """Adds codes, int64 ``[T]``."""
        self._ask("feed", self._number, codes.numpy())

    def end(self) -> None:
        """No codes follow."""
        self._ask("end", self._number)

    def leave(self) -> None:
        """Nobody listens any more: decoding stops with the piece it is at."""
        self._ask("leave", self._number)


# --- in the process ---------------------------------------------------------------------------------------------------


def work(connection: Connection, max_streams: int) -> None:
    """Decodes what it is asked, until it is told to end or nobody is there to ask.

    Args:
        connection: to whoever asks.
        max_streams: sounds that are decoded at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the server, which ends this in its time
    with suppress(OSError, EOFError):
        _Worker(connection, _receive(connection), max_streams).run()
    # What is being decoded is for nobody any more.


class _Worker:
    def __init__(self, connection: Connection, model: Any, max_streams: int) -> None:
        self._connection, self._model = connection, model
        self._threads = SoundThreads(max_streams)
        self._sounds: dict[int, SoundThread] = {}
        self._sending = threading.Lock()

    def run(self) -> None:
        _send(self._connection, "ready")
        while (message := _receive(self._connection)) is not None:
            what, number, *more = message
            if what == "open":
                self._sounds[number] = self._threads.open(more[0].bound_to(self._model), partial(self._tell, number))
            elif what == "whole":
                codes = torch.from_numpy(more[1])
                self._threads.whole(more[0].bound_to(self._model), codes, partial(self._tell_whole, number))
            elif what == "leave":  # comes at the end of every sound, also of one that was heard to its end
                if sound := self._sounds.pop(number, None):
                    sound.leave()
            elif sound := self._sounds.get(number):
                if what == "feed":
                    sound.feed(torch.from_numpy(more[0]))
                else:
                    sound.end()
        self._threads.close()

    def _tell(self, number: int, what: Tensor | Exception | None) -> None:
        message = what.numpy() if isinstance(what, Tensor) else _as_sent(what)
        with self._sending, suppress(OSError):  # nobody is there any more
            _send(self._connection, (number, message))

    def _tell_whole(self, number: int, what: Tensor | Exception | None) -> None:
        self._tell(number, what)
        if isinstance(what, Tensor):
            self._tell(number, None)  # there is no more


def _as_sent(error: Exception | None) -> Exception | None:
    """An error that another process can read, whatever its class wants for its making."""
    if error is None:
        return None
    kind = ValueError if isinstance(error, ValueError) else RuntimeError
    return kind(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
