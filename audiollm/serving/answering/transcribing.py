"""Transcripts of recordings of any length: pieces between pauses, some of which are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from typing import Any

from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.generation.settings import GenerationSettings
from audiollm.prompts import instruction
from audiollm.serving.sound.uploads import Recording
from audiollm.transcription.pieces import Piece, pieces_of
from audiollm.transcription.transcribing import NOT_ASKED, longest_piece
from audiollm.transcription.transcript import TranscriptSegment

from .answerer import Answerer, AnswerPiece, AnswerRequest, Finished, Usage

Answering = Callable[..., AbstractAsyncContextManager[AsyncGenerator[AnswerPiece, None]]]
"""`Answerer.answering`, or something around it that takes the same."""
_TOGETHER = 4  # pieces of one recording, so that a long one leaves places to others


class Transcription:
    """One recording to be written down.

    Args:
        answerer: answers.
        recording: what is said in it.
        task: "transcribe", or "translate".
        settings: of each piece's text.
        request_id: its name in messages and logs.
        answering: by which the answerer is asked; None: by its own method.

    Attributes:
        usage: tokens of all pieces so far.

    Raises:
        ValueError: the context holds no piece.
    """

    def __init__(
        self,
        answerer: Answerer,
        recording: Recording,
        task: str,
        settings: GenerationSettings,
        request_id: str,
        answering: Answering | None = None,
    ) -> None:
        self._answerer, self._recording = answerer, recording
        self._answering = answering or answerer.answering
        self._prompt, self._settings, self._request_id = instruction(task), settings, request_id
        self.usage = Usage(0, 0, 0, 0)
        model = answerer.model
        self._longest = longest_piece(
            model.processor, model.context, self._prompt, max_new_tokens=settings.max_new_tokens
        )

    async def segments(self) -> AsyncGenerator[TranscriptSegment, None]:
        """Segment by segment, in order; errors as for `Answerer.answering`. One request takes one place."""
        waveform, rate = self._recording
        pieces = await asyncio.to_thread(lambda: list(pieces_of([waveform], rate, longest_seconds=self._longest)))
        with self._answerer.admission.place():
            deadline = self._answerer.deadline()  # of all pieces together
            for first in range(0, len(pieces), _TOGETHER):
                batch = pieces[first : first + _TOGETHER]
                for segment in await self._together(batch, deadline):
                    yield segment

    async def _together(self, pieces: Sequence[Piece], deadline: float) -> list[TranscriptSegment]:
        tasks = [asyncio.ensure_future(self._segment(piece, deadline)) for piece in pieces]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # where one fails, or the client leaves, the others end too
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _segment(self, piece: Piece, deadline: float) -> TranscriptSegment:
        if not piece.is_active:
            return TranscriptSegment(piece.start, piece.end, *NOT_ASKED)
        name = f"piece from {piece.start:.2f} s"
        audio = AudioPart(array=piece.waveform.numpy(), sampling_rate=self._recording.sample_rate)
        request = AnswerRequest(
            messages=Conversation(name, [Message("user", [audio, TextPart(self._prompt)])]),
            settings=self._settings,
            request_id=f"{self._request_id}-{round(1000 * piece.start)}",
        )
        async with self._answering(request, has_place=True, deadline=deadline) as coming:
            finished = await last_of(coming)
        self.usage = _sum(self.usage, finished.usage)
        return TranscriptSegment(piece.start, piece.end, finished.text, finished.finish_reason)


async def last_of(pieces: AsyncGenerator[AnswerPiece, None]) -> Finished:
    """The end of an answer, whose pieces are not looked at."""
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Finished):
                return piece
    raise RuntimeError("the answer has no end")


def _sum(one: Usage, other: Usage) -> Usage:
    added: Any = {name: getattr(one, name) + getattr(other, name) for name in vars(one)}
    return replace(one, **added)
