"""Codes to sound while they come: the event loop and the engine go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.processing.processor import AudioLLMProcessor

from .sound_process import SoundProcess
from .sound_threads import SoundThreads, Tell


class Sound(Protocol):
    """One sound in the making."""

    def feed(self, codes: Tensor) -> None:
        """Adds codes, int64 ``[T]``."""

    def end(self) -> None:
        """No codes follow."""

    def leave(self) -> None:
        """Nobody listens any more: decoding stops with the piece it is at."""


class SoundMaker:
    """Decodes the answers of many requests.

    Args:
        processor: its audio tokenizer decodes.
        max_streams: sounds that are decoded at once; more wait.
        joins_segments: the audio segments of an answer are parts of one sound.
        own_process: decode in a process of its own, which `start` begins, and not in threads of this one.
    """

    def __init__(
        self, processor: AudioLLMProcessor, *, max_streams: int, joins_segments: bool, own_process: bool = False
    ) -> None:
        self._processor, self.joins_segments = processor, joins_segments
        self._workshop = SoundProcess(max_streams) if own_process else SoundThreads(max_streams)

    def start(self) -> None:
        """Makes ready what computes; takes seconds where that is a process.

        Raises:
            EngineError: if the process does not begin.
        """
        if isinstance(self._workshop, SoundProcess):
            tokenizer = self._processor.audio_tokenizer
            # Where there is one that takes codes, the decoder is all that decoding needs of a tokenizer.
            decoder = getattr(tokenizer, "decoder", None)
            self._workshop.start(decoder if hasattr(decoder, "decode_stream") else tokenizer)

    @property
    def sample_rate(self) -> int:
        """Of the samples, in Hz."""
        return self._processor.audio_tokenizer.output_sample_rate

    def decoder(self, settings: DecodingSettings | None) -> SpeechDecoder:
        """What decodes one answer; errors as for `SpeechDecoder`. A prompt's recording is encoded by this call."""
        return SpeechDecoder(self._processor.audio_tokenizer, settings, 1, joins_segments=self.joins_segments)

    def open(self, decoder: SpeechDecoder, give: Callable[[Tensor | Exception | None], None]) -> Sound:
        """Begins a sound.

        Args:
            decoder: whose voice it is.
            give: is called in the event loop with each piece of samples, float32 ``[N]``; with None at the end, and
                with the exception where decoding fails.
        """
        return self._workshop.open(decoder, _in_loop(give))

    async def whole(self, decoder: SpeechDecoder, codes: Tensor) -> Tensor:
        """The sound of all codes, int64 ``[T]``, of an answer at once: float32 ``[N]``."""
        made: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()

        def settle(what: Tensor | Exception | None) -> None:
            if made.done():  # nobody waits any more
                return
            if isinstance(what, Exception):
                made.set_exception(what)
            else:
                made.set_result(torch.zeros(0) if what is None else what)

        self._workshop.whole(decoder, codes, _in_loop(settle))
        return await made

    def close(self) -> None:
        """Ends what computes, as soon as it is done with what it is at."""
        self._workshop.close()


def _in_loop(give: Callable[[Tensor | Exception | None], None]) -> Tell:
    """What calls ``give`` in the event loop that runs now, from any thread."""
    loop = asyncio.get_running_loop()

    def tell(what: Tensor | Exception | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(give, what)

    return tell
