"""Sounds on threads: of many a few compute at a time, each on one core."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor

from audiollm.generation.decoding import SpeechDecoder

from .turns import Turns

CORES_OF_A_SOUND = 2
"""One computes the sound, the other is left to the language model."""

Tell = Callable[[Tensor | Exception | None], None]
"""Takes pieces of samples, float32 ``[N]``, from any thread; None at the end, an exception where decoding fails."""


class SoundThreads:
    """Threads that decode.

    Args:
        max_streams: sounds that are decoded at once; more wait.
    """

    def __init__(self, max_streams: int) -> None:
        self._threads = ThreadPoolExecutor(max_streams, "audiollm-sound", initializer=_take_one_core)
        self._turns = Turns(max(1, (os.cpu_count() or 1) // CORES_OF_A_SOUND))

    def open(self, decoder: SpeechDecoder, tell: Tell) -> SoundThread:
        """Begins a sound whose codes come one after the other."""
        return SoundThread(decoder, self._threads, self._turns, tell)

    def whole(self, decoder: SpeechDecoder, codes: Tensor, tell: Tell) -> None:
        """Decodes codes, int64 ``[T]``, that are all there; ``tell`` is called once, with all samples or an error."""

        def decode() -> None:
            self._turns.take(0)
            try:
                [sounds] = decoder.decode([[codes]])
                tell(sounds[0] if sounds else None)
            except Exception as error:
                tell(error)
            finally:
                self._turns.leave()

        self._threads.submit(decode)

    def close(self) -> None:
        """Ends the threads, as soon as they are done with what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _LeftError(Exception):
    """Nobody listens any more."""


class SoundThread:
    """One sound in the making: codes go in by `feed`, samples come out through ``tell``.

    Args:
        decoder: whose voice it is.
        threads: where it is decoded.
        turns: which of the threads compute.
        tell: is called in a thread.
    """

    def __init__(self, decoder: SpeechDecoder, threads: ThreadPoolExecutor, turns: Turns, tell: Tell) -> None:
        self._codes: SimpleQueue[Tensor | _LeftError | None] = SimpleQueue()
        self._decoder, self._turns, self._tell = decoder, turns, tell
        self._num_samples = 0
        self._has_left = False
        self._work = threads.submit(self._decode)

    def feed(self, codes: Tensor) -> None:
        """Adds codes, int64 ``[T]``."""
        self._codes.put(codes)

    def end(self) -> None:
        """No codes follow."""
        self._codes.put(None)

    def leave(self) -> None:
        """Nobody listens any more: decoding stops with the piece it is at."""
        self._has_left = True
        self._work.cancel()
        self._codes.put(_LeftError())

    def _decode(self) -> None:
        self._turns.take(0)
        try:
            for waveform in self._decoder.decode_stream(self._fed()):
                if self._has_left:
                    return
                self._num_samples += len(waveform)
                if len(waveform):
                    self._tell(waveform)
            self._tell(None)
        except _LeftError:
            return
        except Exception as error:
            self._tell(error)
        finally:
            self._turns.leave()

    def _fed(self) -> Iterator[Tensor]:
        """Codes as they come; all that came while others had their turn are one piece."""
        while True:
            came = [self._next()]
            while not self._codes.empty():
                came.append(self._codes.get())
            for one in came:
                if isinstance(one, _LeftError):
                    raise one
            if codes := [one for one in came if isinstance(one, Tensor)]:
                yield torch.cat(codes)
            if came[-1] is None:
                return

    def _next(self) -> Tensor | _LeftError | None:
        """What comes next; whoever has to wait for it leaves its turn to another."""
        self._turns.leave()
        try:
            return self._codes.get()
        finally:
            self._turns.take(self._num_samples)


def _take_one_core() -> None:
    """Makes this thread compute on one core, whatever others do.

    A decoder's networks are small: on two cores a sound takes three quarters of the time, and half as much processor
    time again, for which the language model or another sound would have a better use.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # torch lets threads that begin later compute on as many cores as was said last, in any thread.
    others = threading.Thread(target=torch.set_num_threads, args=(num_threads,))
    others.start()
    others.join()
