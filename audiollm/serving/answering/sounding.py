"""Codes to sound while they come, on threads of their own: the event loop and the engine go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor

from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.processing.processor import AudioLLMProcessor


class _LeftError(Exception):
    """Nobody listens any more."""


class SoundStream:
    """One sound in the making: codes go in by `feed`, samples come out through ``give``.

    Args:
        decoder: whose voice it is.
        threads: where it is decoded.
        give: is called in the event loop with each piece of samples, float32 ``[N]``; with None at the end, and with
            the exception where decoding fails.
    """

    def __init__(
        self,
        decoder: SpeechDecoder,
        threads: ThreadPoolExecutor,
        give: Callable[[Tensor | Exception | None], None],
    ) -> None:
        self._codes: SimpleQueue[Tensor | _LeftError | None] = SimpleQueue()
        self._decoder, self._give = decoder, give
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
        try:
            for waveform in self._decoder.decode_stream(self._fed()):
                if self._has_left:
                    return
                if len(waveform):
                    self._tell(waveform)
            self._tell(None)
        except _LeftError:
            return
        except Exception as error:
            self._tell(error)

    def _fed(self) -> Iterator[Tensor]:
        while (codes := self._codes.get()) is not None:
            if isinstance(codes, _LeftError):
                raise codes
            yield codes

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
        self._threads = ThreadPoolExecutor(max_streams, "audiollm-sound")

    @property
    def sample_rate(self) -> int:
        """Of the samples, in Hz."""
        return self._processor.audio_tokenizer.output_sample_rate

    def decoder(self, settings: DecodingSettings | None) -> SpeechDecoder:
        """What decodes one answer; errors as for `SpeechDecoder`. A prompt's recording is encoded by this call."""
        return SpeechDecoder(self._processor.audio_tokenizer, settings, 1, joins_segments=self.joins_segments)

    def open(self, decoder: SpeechDecoder, give: Callable[[Tensor | Exception | None], None]) -> SoundStream:
        """Begins a sound; arguments as for `SoundStream`."""
        return SoundStream(decoder, self._threads, give)

    async def whole(self, decoder: SpeechDecoder, codes: Tensor) -> Tensor:
        """The sound of all codes, int64 ``[T]``, of an answer at once: float32 ``[N]``."""
        decoded = await asyncio.get_running_loop().run_in_executor(self._threads, decoder.decode, [[codes]])
        return decoded[0][0] if decoded[0] else torch.zeros(0)

    def close(self) -> None:
        """Ends the threads, as soon as they are done with what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
