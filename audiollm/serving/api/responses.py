"""Answers on their way out: JSON lines of events, bytes of sound, and the first piece before the status is sent."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from torch import Tensor

from audiollm.serving.answering.answerer import AnswerPiece
from audiollm.serving.sound.formats import SoundEncoder, encode_whole
from audiollm.serving.sound.streams import SoundStream

from .errors import request_id_of, told
from .state import unless_left

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Proxies pass on what comes as it comes."""


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


async def streamed(
    request: Request,
    chunks: AsyncGenerator[bytes, None],
    media_type: str,
    headers: Mapping[str, str] | None = None,
    *,
    tells_errors: bool = False,
) -> StreamingResponse:
    """A response of chunks, of which the first is there before the status is sent: what fails until then has its own.

    Args:
        request: of the client.
        chunks: the body.
        media_type: of it.
        headers: more headers.
        tells_errors: an error behind the first chunk is sent as an event; otherwise the connection is cut.

    Raises:
        Exception: what the first chunk raised.
    """
    try:
        first = await unless_left(request, _next(chunks))
    except BaseException:
        await chunks.aclose()
        raise

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            known = told(error, request_id_of(request))
            if not tells_errors:
                logger.warning("request %s: cut in the middle: %s", request_id_of(request), known.message)
                raise
            yield event(known.body)
        finally:
            await chunks.aclose()

    return _ClosedAtTheEnd(body(), media_type=media_type, headers={**STREAM_HEADERS, **(headers or {})})


class _ClosedAtTheEnd(StreamingResponse):
    """A stream whose chunks are closed with it: one that a client does not read ends where it is sent, not where it is
    made, and would keep its place until the collector finds it."""

    body_iterator: AsyncGenerator[bytes, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()


async def _next(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(chunks, b"")


async def begun(pieces: AsyncGenerator[AnswerPiece, None]) -> AsyncIterator[AnswerPiece]:
    """The pieces, of which the first is there already: what fails until then has a status of its own."""
    first = await anext(pieces)

    async def all_of_them() -> AsyncIterator[AnswerPiece]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()


class SoundBytes:
    """Samples of a decoder to the bytes of a response.

    Args:
        name: of the format.
        sample_rate: of what comes, in Hz.
        speed: of the speech, 0.25 to 4.

    Raises:
        ValueError: as for `SoundEncoder` and `SoundStream`.
        PyAVMissingError: likewise.
    """

    def __init__(self, name: str, sample_rate: int, speed: float = 1.0) -> None:
        self.encoder = SoundEncoder(name)
        self._stream = SoundStream(sample_rate, speed)

    def write(self, waveform: np.ndarray) -> bytes:
        """Bytes that are ready with the next samples, float32 ``[N]``."""
        return self.encoder.write(self._stream.write(waveform))

    def close(self) -> bytes:
        """The rest."""
        return self.encoder.write(self._stream.close()) + self.encoder.close()


def whole_sound(pieces: Sequence[Tensor], sample_rate: int, name: str, speed: float = 1.0) -> bytes:
    """A recording of a decoder's samples, with its true length in its header.

    Args:
        pieces: of the sound in order, float32 ``[n]`` each.
        sample_rate: of them, in Hz.
        name: of the format.
        speed: of the speech.
    """
    stream = SoundStream(sample_rate, speed)
    return encode_whole(np.concatenate([*(stream.write(piece.numpy()) for piece in pieces), stream.close()]), name)
