"""Codes to sound while they come, on threads of their own: the event loop and the engine go on meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor

from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.processing.processor import AudioLLMProcessor

from .turns import Turns

CORES_OF_A_SOUND = 2
"""One computes the sound, the other is left to the language model."""


class _LeftError(Exception):
    """Nobody listens any more."""


class SoundStream:
    """One sound in the making: codes go in by `feed`, samples come out through ``give``.

    Args:
        decoder: whose voice it is.
        threads: where it is decoded.
        turns: which of the threads compute.
        give: is called in the event loop with each piece of samples, float32 ``[N]``; with None at the end, and with
            the exception where decoding fails.
    """

    def __init__(
        self,
        decoder: SpeechDecoder,
        threads: ThreadPoolExecutor,
        turns: Turns,
        give: Callable[[Tensor | Exception | None], None],
    ) -> None:
        self._codes: SimpleQueue[Tensor | _LeftError | None] = SimpleQueue()
        self._decoder, self._turns, self._give = decoder, turns, give
        self._num_samples = 0
        self._loop = asyncio.get_running_loop()
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

    def _tell(self, what: Tensor | Exception | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._give, what)


class SoundMaker:
    """Decodes the answers of many requests.

    Args:
        processor: its audio tokenizer decodes.
        max_streams: sounds that are decoded at once; more wait.
        joins_segments: the audio segments of an answer are parts of one sound.
    """

    def __init__(self, processor: AudioLLMProcessor, *, max_streams: int, joins_segments: bool) -> None:
        self._processor, self.joins_segments = processor, joins_segments
        self._threads = ThreadPoolExecutor(max_streams, "audiollm-sound", initializer=_take_one_core)
        self._turns = Turns(max(1, (os.cpu_count() or 1) // CORES_OF_A_SOUND))

    @property
    def sample_rate(self) -> int:
        """Of the samples, in Hz."""
        return self._processor.audio_tokenizer.output_sample_rate

    def decoder(self, settings: DecodingSettings | None) -> SpeechDecoder:
        """What decodes one answer; errors as for `SpeechDecoder`. A prompt's recording is encoded by this call."""
        return SpeechDecoder(self._processor.audio_tokenizer, settings, 1, joins_segments=self.joins_segments)

    def open(self, decoder: SpeechDecoder, give: Callable[[Tensor | Exception | None], None]) -> SoundStream:
        """Begins a sound; arguments as for `SoundStream`."""
        return SoundStream(decoder, self._threads, self._turns, give)

    async def whole(self, decoder: SpeechDecoder, codes: Tensor) -> Tensor:
        """The sound of all codes, int64 ``[T]``, of an answer at once: float32 ``[N]``."""

        def decoded() -> list[list[Tensor]]:
            self._turns.take(0)
            try:
                return decoder.decode([[codes]])
            finally:
                self._turns.leave()

        [sounds] = await asyncio.get_running_loop().run_in_executor(self._threads, decoded)
        return sounds[0] if sounds else torch.zeros(0)

    def close(self) -> None:
        """Ends the threads, as soon as they are done with what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)


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
