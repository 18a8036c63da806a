"""``POST /v1/audio/speech``: a text spoken, as bytes of a recording or as events."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field
from torch import Tensor

from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.settings import GenerationSettings
from audiollm.serving.answering.answerer import AnswerRequest, Finished, SoundPiece
from audiollm.serving.answering.parts import parts_of
from audiollm.serving.api.chat_types import Strict, VoiceId, voice_name
from audiollm.serving.api.errors import ApiError, refused, request_id_of, told
from audiollm.serving.api.responses import EVENT_STREAM, SoundBytes, event, streamed, whole_sound
from audiollm.serving.api.state import ServerState, state_of, unless_left
from audiollm.serving.sound.formats import sound_format
from audiollm.speaking import SpeechRequest, answer_form

router = APIRouter()


class SpeechBody(Strict):
    """A text, and how it is spoken.

    ``stream``, ``seed``, ``temperature``, ``top_p``, ``top_k``, ``min_seconds`` and ``max_seconds`` are ours.
    """

    model: str
    input: str
    voice: str | VoiceId = "default"
    instructions: str | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = True
    """False: the recording is sent when it is whole, with its true length in its header."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(gt=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_seconds: Annotated[float, Field(ge=0)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None


@router.post("/v1/audio/speech", response_class=Response)
async def speech(body: SpeechBody, request: Request) -> Response:
    """Speaks a text."""
    state = state_of(request)
    state.check_model(body.model)
    spoken = _Speech(state, body, request_id_of(request))
    if body.stream_format == "sse":
        return await streamed(request, spoken.events(), EVENT_STREAM, tells_errors=True)
    form = sound_format(body.response_format)
    headers = {**form.headers, "Content-Disposition": f'inline; filename="speech{form.extension}"'}
    if not body.stream:
        return Response(await unless_left(request, spoken.whole()), media_type=form.media_type, headers=headers)
    return await streamed(request, spoken.chunks(), form.media_type, headers)


class _Speech:
    """A text that is spoken, part after part, as one sound.

    Raises:
        ApiError: something in the request cannot be used; its field is named.
    """

    def __init__(self, state: ServerState, body: SpeechBody, request_id: str) -> None:
        if not state.answerer.model.can_speak:
            raise refused("model", "it has no decoder, so it cannot speak")
        most = state.settings.max_text_characters
        if len(body.input) > most:
            raise refused("input", f"has {len(body.input)} characters, but {most} are the most here: send it in parts")
        self._state, self._body, self._request_id = state, body, request_id
        self._voice = state.voices.get(voice_name(body.voice))
        parts = parts_of(body.input, state.settings.max_part_characters)
        if not parts:
            raise refused("input", "is empty: give a text")
        if len(parts) > 1 and (body.min_seconds, body.max_seconds) != (None, None):
            name = "min_seconds" if body.min_seconds is not None else "max_seconds"
            raise refused(name, f"the text is spoken in {len(parts)} parts, each as long as it takes: leave it out")
        self._requests = [self._request(part, number) for number, part in enumerate(parts)]
        self._read = self._made = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the recording."""
        sound = SoundBytes(self._body.response_format, self._state.answerer.sounds.sample_rate, self._body.speed)
        with sound.encoder:
            async with aclosing(self._waveforms()) as waveforms:
                async for waveform in waveforms:
                    if data := sound.write(waveform.numpy()):
                        yield data
            if rest := sound.close():
                yield rest

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The same as events."""
        async with aclosing(self.chunks()) as chunks:
            async for data in chunks:
                yield event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
        usage = {
            "input_tokens": self._read,
            "output_tokens": self._made,
            "total_tokens": self._read + self._made,
        }
        yield event({"type": "speech.audio.done", "usage": usage})

    async def whole(self) -> bytes:
        """The recording with its true length in its header."""
        pieces = [waveform async for waveform in self._waveforms()]
        rate, body = self._state.answerer.sounds.sample_rate, self._body
        return await self._state.read(lambda: whole_sound(pieces, rate, body.response_format, body.speed))

    async def _waveforms(self) -> AsyncGenerator[Tensor, None]:
        """Samples of all parts, in order.

        Raises:
            ApiError: a part has no end: what is missing of it must not go unnoticed.
        """
        with self._state.answerer.admission.place():
            deadline = self._state.answerer.deadline()  # of all parts together
            for number, request in enumerate(self._requests):
                async with self._state.answering(request, has_place=True, deadline=deadline) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, SoundPiece):
                            yield piece.waveform
                        elif isinstance(piece, Finished):
                            self._count(piece, number)

    def _count(self, finished: Finished, number: int) -> None:
        usage = finished.usage
        self._read += usage.prompt_text + usage.prompt_audio
        self._made += usage.answer_text + usage.answer_audio
        if finished.finish_reason == "length" and self._body.max_seconds is None:
            message = (
                f"the model did not come to an end with part {number + 1} of {len(self._requests)} of the text: give "
                "max_seconds to have what there is, another seed, or a shorter text"
            )
            raise ApiError(500, message, code="speech_was_cut", headers={"x-should-retry": "false"})

    def _request(self, part: str, number: int) -> AnswerRequest:
        body = self._body
        seed = None if body.seed is None else (body.seed + number) % 2**63
        try:
            spoken = SpeechRequest.of(part, self._words())
            form = answer_form([part], self._state.answerer.model.generation_config)
            names = ("temperature", "top_p", "top_k", "min_seconds", "max_seconds")
            settings = GenerationSettings(**form, seed=seed, **{name: getattr(body, name) for name in names})
        except ValueError as error:
            raise told(error, self._request_id, param="input") from error
        return AnswerRequest(
            messages=spoken.conversation,
            settings=settings,
            decoding=DecodingSettings(prompt=self._voice.prompt, seed=seed),
            has_sound=True,
            request_id=self._request_id if number == 0 else f"{self._request_id}-{number}",
        )

    def _words(self) -> str | None:
        """The voice in words: the instructions, where there are some, after those of the name."""
        return ", ".join(one for one in (self._voice.words, (self._body.instructions or "").strip()) if one) or None
