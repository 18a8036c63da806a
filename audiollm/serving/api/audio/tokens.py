"""``/v1/audio/tokens``: recordings to codes, and codes to sound, without the language model."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, File, Request, Response, UploadFile
from pydantic import Field

from audiollm.data.conversation.types import AudioPart
from audiollm.generation.decoding import DecodingSettings
from audiollm.serving.api.chat_types import Strict, VoiceId, voice_name
from audiollm.serving.api.errors import refused
from audiollm.serving.api.responses import whole_sound
from audiollm.serving.api.state import state_of, unless_left
from audiollm.serving.sound.formats import sound_format

from .uploads import read_file

router = APIRouter()
_MOST_SECONDS = 600
_MOST_CODES = 1000 * _MOST_SECONDS  # of any tokenizer; of this server's those of as many seconds are taken


class DecodeBody(Strict):
    """Codes, and how they are made sound."""

    codes: Annotated[list[int], Field(min_length=1, max_length=_MOST_CODES)]
    fingerprint: str | None = None
    """Of the audio tokenizer that made them; another one's are refused."""
    voice: str | VoiceId = "default"
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "wav"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    quality: Literal["fast", "exact"] | None = None


@router.post("/v1/audio/tokens/encode")
async def encode(request: Request, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    """The codes of a recording."""
    state = state_of(request)
    if not state.answerer.model.can_listen:
        raise refused("file", "this model has no audio tokenizer, so it takes no recordings")
    recording = await read_file(state, file, "file")
    part = AudioPart(array=recording.waveform.numpy(), sampling_rate=recording.sample_rate, where="file")

    async def heard() -> list[int]:
        with state.answerer.admission.place():
            [codes] = await state.answerer.in_time(state.answerer.listener.codes([part]), state.answerer.deadline())
        return codes

    codes = await unless_left(request, heard())
    tokenizer = state.answerer.model.processor.audio_tokenizer
    layout = state.answerer.model.processor.vocabulary.row_layout
    return {
        "object": "audio.tokens",
        "codes": codes,
        "frame_rate": tokenizer.frame_rate,
        "codebook_size": tokenizer.codebook_size,
        "fingerprint": state.answerer.model.processor.codec_fingerprint,
        "duration": recording.duration_seconds,
        **({} if layout is None else {"code_layout": layout.to_dict()}),
    }


@router.post("/v1/audio/tokens/decode", response_class=Response)
async def decode(body: DecodeBody, request: Request) -> Response:
    """The sound of codes."""
    state = state_of(request)
    model = state.answerer.model
    if not model.can_speak:
        raise refused("codes", "this model has no decoder, so codes cannot become sound")
    most = math.ceil(_MOST_SECONDS * model.processor.audio_tokenizer.frame_rate)
    if len(body.codes) > most:
        raise refused("codes", f"has {len(body.codes)} codes, more than those of ten minutes of sound ({most}): cut it")
    size = model.processor.vocabulary.codebook_size
    wrong = next((index for index, code in enumerate(body.codes) if not 0 <= code < size), None)
    if wrong is not None:
        raise refused(f"codes[{wrong}]", f"{body.codes[wrong]} is no code: they go from 0 to {size - 1}")
    if model.processor.vocabulary.row_layout is not None:
        try:
            model.processor.vocabulary.row_layout.check(torch.tensor(body.codes))
        except ValueError as error:
            raise refused("codes", str(error)) from error
    model.processor.check_maker(body.fingerprint, "codes")
    voice = state.voices.get(voice_name(body.voice))
    if voice.words:
        raise refused("voice", f"{voice.name!r} is described in words, which only the language model understands")
    sounds = state.answerer.sounds
    decoder = sounds.decoder(DecodingSettings(prompt=voice.prompt, seed=body.seed, quality=body.quality))

    async def made() -> bytes:
        with state.answerer.admission.place():
            waveform = await state.answerer.in_time(
                sounds.whole(decoder, torch.tensor(body.codes)), state.answerer.deadline()
            )
        return await state.read(lambda: whole_sound([waveform], sounds.sample_rate, body.response_format, body.speed))

    form = sound_format(body.response_format)
    return Response(await unless_left(request, made()), media_type=form.media_type, headers=dict(form.headers))
