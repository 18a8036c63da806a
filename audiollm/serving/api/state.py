"""What the routes share: the answerer, the settings, voices, and answers that may be referred to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from audiollm.chat.input import to_conversation
from audiollm.data.conversation.types import TextPart
from audiollm.serving.answering.answerer import Answerer, AnswerPiece, AnswerRequest, Finished, SoundPiece
from audiollm.serving.settings import ServerSettings

from .errors import ApiError
from .metrics import Metrics
from .voices import Voices

logger = logging.getLogger("audiollm.serving.content")
Result = TypeVar("Result")
_NUM_READERS = 4


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that was spoken: what a later request may call by its id."""

    text: str
    codes: Sequence[int]
    expires_at: int
    key: str


class KeptAnswers:
    """Answers by their ids, until they expire; each is there for clients of its own API key alone.

    Args:
        seconds: how long one is kept.
        most: how many are kept; the oldest go first.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._answers: OrderedDict[str, KeptAnswer] = OrderedDict()

    def keep(self, identifier: str, text: str, codes: Sequence[int], key: str) -> int:
        """Keeps an answer; returns when it expires, in seconds since 1970."""
        expires_at = self.expires_at()
        self._answers[identifier] = KeptAnswer(text, codes, expires_at, key)
        now = time.time()
        for one, answer in list(self._answers.items()):  # the oldest, which expires first, is in front
            if len(self._answers) <= self._most and answer.expires_at > now:
                break
            del self._answers[one]
        return expires_at

    def expires_at(self) -> int:
        """When one that is kept now expires."""
        return int(time.time() + self._seconds)

    def get(self, identifier: str, key: str) -> KeptAnswer | None:
        """The answer; None if there is none, or no longer, or it is another key's."""
        found = self._answers.get(identifier)
        return found if found is not None and found.expires_at > time.time() and found.key == key else None


class ServerState:
    """All that routes share.

    Args:
        answerer: answers.
        settings: limits and defaults.
    """

    def __init__(self, answerer: Answerer, settings: ServerSettings) -> None:
        self.answerer, self.settings = answerer, settings
        admission = answerer.admission
        self.metrics = Metrics(lambda: admission.num_inside - admission.num_waiting, lambda: admission.num_waiting)
        self.kept = KeptAnswers(settings.keep_answers_seconds, settings.max_kept_answers)
        self.voices = Voices(answerer.model, settings.voices)
        if settings.log_content:
            logger.setLevel(logging.INFO)  # whatever is told of other things
        self._readers = ThreadPoolExecutor(_NUM_READERS, "audiollm-read")

    async def read(self, work: Callable[[], Result]) -> Result:
        """Decodes or encodes sound on a thread, a few at a time: an upload of megabytes takes a second."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    @property
    def model_name(self) -> str:
        """By which clients call the model."""
        return self.answerer.model.name

    def check_model(self, name: str) -> None:
        """Raises ApiError if a request asks for another model than the one that is served."""
        if name != self.model_name:
            message = f"model: {name!r} is not served here: use {self.model_name!r} (GET /v1/models lists it)"
            raise ApiError(404, message, param="model", code="model_not_found")

    @asynccontextmanager
    async def answering(
        self, request: AnswerRequest, *, has_place: bool = False, deadline: float | None = None
    ) -> AsyncGenerator[AsyncGenerator[AnswerPiece, None], None]:
        """`Answerer.answering`, told to the figures, and to the log if that is to have it."""
        started = time.monotonic()
        if self.settings.log_content:
            logger.info("request %s asks: %s", request.request_id, _texts_of(request))
        async with self.answerer.answering(request, has_place=has_place, deadline=deadline) as pieces:
            watched = self._watched(pieces, started, request.request_id)
            try:
                yield watched
            finally:
                await watched.aclose()

    async def _watched(
        self, pieces: AsyncGenerator[AnswerPiece, None], started: float, request_id: str
    ) -> AsyncGenerator[AnswerPiece, None]:
        has_begun, sound_seconds = False, 0.0
        async for piece in pieces:
            elapsed = time.monotonic() - started
            if not has_begun:
                has_begun = True
                self.metrics.began(elapsed, is_sound=False)
            if isinstance(piece, SoundPiece):
                if not sound_seconds:
                    self.metrics.began(elapsed, is_sound=True)
                sound_seconds += len(piece.waveform) / piece.sample_rate
            if isinstance(piece, Finished):
                usage = piece.usage
                if self.settings.log_content:
                    logger.info("request %s is answered: %s", request_id, piece.text)
                self.metrics.answered(
                    usage.prompt_text + usage.prompt_audio, usage.answer_text + usage.answer_audio, len(piece.codes)
                )
                self.metrics.sounded(elapsed, sound_seconds)
            yield piece


def _texts_of(request: AnswerRequest) -> str:
    """What a request says; recordings are not told."""
    conversation = to_conversation(request.messages, "messages", None, None)
    texts = (part.text for one in conversation.messages for part in one.content if isinstance(part, TextPart))
    return " | ".join(texts)


def state_of(request: Request) -> ServerState:
    """What the app was built with."""
    state: ServerState = request.app.state.server
    return state


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Waits for some work; cancels it as soon as the client has left.

    Starlette cancels a stream whose client leaves, but no plain answer.

    Raises:
        ClientDisconnect: the client has left.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
