"""Recordings to codes: those that come within a few milliseconds go through the audio tokenizer together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from audiollm.data.conversation.types import AudioPart
from audiollm.processing.processor import AudioLLMProcessor

WINDOW_SECONDS = 0.005
MAX_BATCH = 16


class Listener:
    """Encodes recordings of many requests in a thread of its own.

    Args:
        processor: has the audio tokenizer.
        window_seconds: how long the first recording waits for others.
        max_batch: most recordings that are encoded together.
    """

    def __init__(
        self, processor: AudioLLMProcessor, *, window_seconds: float = WINDOW_SECONDS, max_batch: int = MAX_BATCH
    ) -> None:
        if window_seconds < 0 or max_batch < 1:
            raise ValueError(f"window_seconds={window_seconds}, max_batch={max_batch}: use 0 or more, and 1 or more")
        self._processor = processor
        self._window_seconds, self._max_batch = window_seconds, max_batch
        self._waiting: list[tuple[AudioPart, asyncio.Future[list[int]]]] = []
        self._thread = ThreadPoolExecutor(1, "audiollm-listen")
        self._task: asyncio.Task[None] | None = None

    async def codes(self, recordings: Sequence[AudioPart]) -> list[list[int]]:
        """The codes of each recording, in order; errors as for `AudioLLMProcessor.codes_of`."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[list[int]]] = [loop.create_future() for _ in recordings]
        self._waiting.extend(zip(recordings, futures, strict=True))
        if self._waiting and (self._task is None or self._task.done()):
            self._task = loop.create_task(self._work())
        results = await asyncio.gather(*futures, return_exceptions=True)
        codes = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            codes.append(result)
        return codes

    def close(self) -> None:
        """Ends the thread; recordings that wait are not encoded any more."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._window_seconds)
            # Whoever left meanwhile has cancelled its futures.
            batch = [one for one in self._waiting[: self._max_batch] if not one[1].done()]
            del self._waiting[: self._max_batch]
            await self._encode(batch)

    async def _encode(self, batch: Sequence[tuple[AudioPart, asyncio.Future[list[int]]]]) -> None:
        loop = asyncio.get_running_loop()
        if not batch:
            return
        try:
            encoded = await loop.run_in_executor(self._thread, self._processor.codes_of, [part for part, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for one in batch:  # by itself each: one that cannot be used must not fail the others
                await self._encode([one])
            return
        for (_, future), codes in zip(batch, encoded, strict=True):
            _settle(future, codes)


def _settle(future: asyncio.Future[list[int]], result: list[int] | Exception) -> None:
    if future.done():  # its request has left
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
