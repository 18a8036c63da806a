"""``/v1/audio/voices``: the voices that there are; recordings of others, where the decoder takes over voices."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile

from audiollm.generation.decoding import voice_prompt
from audiollm.serving.api.errors import ApiError
from audiollm.serving.api.state import state_of
from audiollm.serving.api.voices import NamedVoice

from .uploads import read_file

router = APIRouter()


@router.get("/v1/audio/voices")
async def voices(request: Request) -> dict[str, Any]:
    """The voices by name."""
    state = state_of(request)
    found = list(state.voices) if state.answerer.model.can_speak else []
    return {
        "object": "list",
        "data": [
            {"id": one.name, "name": one.name, "words": one.words, "is_recording": one.prompt is not None}
            for one in found
        ],
        "voices": [{"id": one.name, "name": one.name} for one in found],  # as Open WebUI reads them
    }


@router.post("/v1/audio/voices")
async def add_voice(
    request: Request, name: Annotated[str, Form()], audio_sample: Annotated[UploadFile, File()]
) -> dict[str, Any]:
    """Keeps a recording whose voice may speak, until the server ends."""
    state = state_of(request)
    if not state.voices.takes_recordings:
        message = "this model's decoder takes no recordings as voices: describe one by `instructions` of speech"
        raise ApiError(404, message, code="no_recorded_voices")
    recording = await read_file(state, audio_sample, "audio_sample")
    tokenizer = state.answerer.model.processor.audio_tokenizer
    prompt = await state.read(lambda: voice_prompt(tokenizer, recording.waveform, recording.sample_rate))
    state.voices.add(NamedVoice(name, prompt=prompt))
    return {"id": name, "name": name, "object": "voice", "seconds": round(recording.duration_seconds, 3)}


@router.delete("/v1/audio/voices/{name}")
async def remove_voice(name: str, request: Request) -> dict[str, Any]:
    """Forgets a voice that was uploaded."""
    state_of(request).voices.remove(name)
    return {"id": name, "object": "voice.deleted", "deleted": True}
