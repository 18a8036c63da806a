"""``POST /v1/audio/speech``: a text spoken, as bytes of a recording or as events."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.settings import GenerationSettings
from audiollm.serving.answering.answerer import AnswerRequest, Finished, SoundPiece
from audiollm.serving.api.chat_types import Strict, VoiceId
from audiollm.serving.api.errors import refused, request_id_of, told
from audiollm.serving.api.responses import EVENT_STREAM, SoundBytes, event, streamed, whole_sound
from audiollm.serving.api.state import ServerState, state_of, unless_left
from audiollm.serving.api.voices import NamedVoice
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
    asked = _answer_request(state, body, request_id_of(request))
    if body.stream_format == "sse":
        return await streamed(request, _events(state, body, asked), EVENT_STREAM, tells_errors=True)
    form = sound_format(body.response_format)
    headers = {**form.headers, "Content-Disposition": f'inline; filename="speech{form.extension}"'}
    if not body.stream:
        content = await unless_left(request, _whole(state, body, asked))
        return Response(content, media_type=form.media_type, headers=headers)
    return await streamed(request, _bytes(state, body, asked), form.media_type, headers)


def _answer_request(state: ServerState, body: SpeechBody, request_id: str) -> AnswerRequest:
    """The request in the model's own terms.

    Raises:
        ApiError: something in it cannot be used; its field is named.
    """
    if not state.answerer.model.can_speak:
        raise refused("model", "it has no decoder, so it cannot speak")
    most = state.settings.max_text_characters
    if len(body.input) > most:
        raise refused("input", f"has {len(body.input)} characters, but {most} are the most here: send it in parts")
    voice = state.voices.get(body.voice if isinstance(body.voice, str) else body.voice.id)
    try:
        spoken = SpeechRequest.of(body.input, _words(voice, body.instructions))
        form = answer_form([body.input], state.answerer.model.generation_config)
        names = ("seed", "temperature", "top_p", "top_k", "min_seconds", "max_seconds")
        settings = GenerationSettings(**form, **{name: getattr(body, name) for name in names})
    except ValueError as error:
        raise told(error, request_id, param="input") from error
    return AnswerRequest(
        messages=spoken.conversation,
        settings=settings,
        decoding=DecodingSettings(prompt=voice.prompt, seed=body.seed),
        has_sound=True,
        request_id=request_id,
    )


def _words(voice: NamedVoice, instructions: str | None) -> str | None:
    """The voice in words: the instructions, where there are some, after those of the name."""
    return ", ".join(one for one in (voice.words, (instructions or "").strip()) if one) or None


async def _bytes(state: ServerState, body: SpeechBody, asked: AnswerRequest) -> AsyncGenerator[bytes, None]:
    sound = SoundBytes(body.response_format, state.answerer.sounds.sample_rate, body.speed)
    with sound.encoder:
        async with state.answering(asked) as pieces:
            async for piece in pieces:
                if isinstance(piece, SoundPiece) and (data := sound.write(piece.waveform.numpy())):
                    yield data
        if rest := sound.close():
            yield rest


async def _events(state: ServerState, body: SpeechBody, asked: AnswerRequest) -> AsyncGenerator[bytes, None]:
    sound = SoundBytes(body.response_format, state.answerer.sounds.sample_rate, body.speed)

    def delta(data: bytes) -> bytes:
        return event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})

    with sound.encoder:
        async with state.answering(asked) as pieces:
            async for piece in pieces:
                if isinstance(piece, SoundPiece) and (data := sound.write(piece.waveform.numpy())):
                    yield delta(data)
                elif isinstance(piece, Finished):
                    finished = piece
        if rest := sound.close():
            yield delta(rest)
    yield event({"type": "speech.audio.done", "usage": _usage(finished)})


async def _whole(state: ServerState, body: SpeechBody, asked: AnswerRequest) -> bytes:
    pieces = []
    async with state.answering(asked) as coming:
        async for piece in coming:
            if isinstance(piece, SoundPiece):
                pieces.append(piece.waveform)

    rate = state.answerer.sounds.sample_rate
    return await state.read(lambda: whole_sound(pieces, rate, body.response_format, body.speed))


def _usage(finished: Finished) -> dict[str, Any]:
    usage = finished.usage
    read, made = usage.prompt_text + usage.prompt_audio, usage.answer_text + usage.answer_audio
    return {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}
