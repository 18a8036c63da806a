"""``POST /v1/audio/transcriptions`` and ``/v1/audio/translations``: what is said in a recording of any length."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Any, Literal, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import FormData, UploadFile

from audiollm.generation.settings import GenerationSettings
from audiollm.serving.answering.answerer import Usage
from audiollm.serving.answering.transcribing import Transcription
from audiollm.serving.api.errors import ApiError, refused, request_id_of, told
from audiollm.serving.api.responses import EVENT_STREAM, event, streamed
from audiollm.serving.api.state import ServerState, state_of, unless_left
from audiollm.serving.sound.uploads import Recording
from audiollm.transcription.transcript import Transcript, TranscriptFormat, TranscriptSegment

from .uploads import read_file

router = APIRouter()

Task = Literal["transcribe", "translate"]
_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_KNOWN = frozenset(
    (
        *("file", "model", "response_format", "temperature", "stream", "language", "prompt"),
        *("timestamp_granularities[]", "chunking_strategy", "include[]"),
    )
)
_MEDIA_TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "model"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "model": {"type": "string"},
                        "response_format": {"type": "string", "enum": list(_FORMATS)},
                        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
                        "stream": {"type": "boolean"},
                        "timestamp_granularities[]": {
                            "type": "array",
                            "items": {"type": "string", "enum": ["segment"]},
                        },
                        "chunking_strategy": {"type": "string", "enum": ["auto"]},
                    },
                }
            }
        },
    }
}


@router.post("/v1/audio/transcriptions", openapi_extra=_FORM)
async def transcriptions(request: Request) -> Response:
    """Writes down what is said."""
    return await _answer(request, "transcribe")


@router.post("/v1/audio/translations", openapi_extra=_FORM)
async def translations(request: Request) -> Response:
    """Writes down in English what is said, with a model that was trained for it."""
    if not state_of(request).settings.translates:
        message = (
            "this model was not trained to translate; transcriptions are at /v1/audio/transcriptions (a server of one "
            "that was is started with --translates)"
        )
        raise ApiError(404, message, code="no_translations")
    return await _answer(request, "translate")


@dataclass(frozen=True)
class _Form:
    """The fields of a request, checked."""

    file: UploadFile
    response_format: str
    temperature: float
    stream: bool


async def _answer(request: Request, task: Task) -> Response:
    state, request_id = state_of(request), request_id_of(request)
    if not state.answerer.model.can_listen:
        raise refused("model", "it has no audio tokenizer, so it takes no recordings")
    form = _checked(state, await _form(request))
    recording = await read_file(state, form.file, "file")
    settings = GenerationSettings(temperature=form.temperature) if form.temperature else GenerationSettings()
    try:
        transcription = Transcription(state.answerer, recording, task, settings, request_id, answering=state.answering)
    except ValueError as error:
        raise told(error, request_id, param="file") from error
    if form.stream:
        return await streamed(request, _events(transcription), EVENT_STREAM, tells_errors=True)

    async def written() -> Transcript:
        return Transcript([segment async for segment in transcription.segments()])

    transcript = await unless_left(request, written())
    return _response(transcript, form, recording, transcription, task)


async def _form(request: Request) -> FormData:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "send the recording as a form: multipart/form-data with `file` and `model`", code="no_form")
    return await request.form(max_files=1, max_fields=32)


def _checked(state: ServerState, form: FormData) -> _Form:
    for name in form:
        if name not in _KNOWN and not name.startswith("chunking_strategy["):
            raise ApiError(400, f"{name}: is not supported here: leave it out", param=name, code="unknown_parameter")
    for name in ("language", "prompt"):
        if form.get(name) and name not in state.settings.ignored:
            raise refused(name, "has no effect on this model: leave it out (or start the server with --ignore)")
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise refused("file", "is missing: send the recording as a file")
    if not form.get("model"):
        raise refused("model", f"is missing: use {state.model_name!r}")
    state.check_model(_text(form, "model", ""))
    response_format = _text(form, "response_format", "json")
    if response_format not in _FORMATS:
        raise refused("response_format", f"{response_format!r}: use one of {', '.join(_FORMATS)}")
    is_stream = _switch(form, "stream")
    if is_stream and response_format != "json":
        raise refused("response_format", "a stream is json")
    granularities = form.getlist("timestamp_granularities[]")
    _check_granularities(granularities, response_format)
    if any(name.startswith("chunking_strategy[") for name in form) or form.get("chunking_strategy", "auto") != "auto":
        raise refused("chunking_strategy", 'recordings are cut at their pauses: use "auto", or leave it out')
    if form.getlist("include[]"):
        raise refused("include[]", "probabilities are not told here: leave it out")
    return _Form(file, response_format, _temperature(form), is_stream)


def _check_granularities(granularities: Collection[Any], response_format: str) -> None:
    if granularities and response_format != "verbose_json":
        raise refused("timestamp_granularities[]", "is told in verbose_json only: ask for that, or leave it out")
    if any(one != "segment" for one in granularities):
        raise refused("timestamp_granularities[]", "times of segments alone are known: use segment")


def _text(form: FormData, name: str, default: str) -> str:
    value = form.get(name, default)
    if not isinstance(value, str):
        raise refused(name, "is a file where a text is expected")
    return value


def _switch(form: FormData, name: str) -> bool:
    value = _text(form, name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise refused(name, f"{value!r}: use true or false")
    return value in ("true", "1")


def _temperature(form: FormData) -> float:
    text = _text(form, "temperature", "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise refused("temperature", f"{text!r}: use a number from 0 to 1")
    return value


def _response(
    transcript: Transcript, form: _Form, recording: Recording, transcription: Transcription, task: Task
) -> Response:
    kind = form.response_format
    if kind == "json":
        usage = {"type": "duration", "seconds": math.ceil(recording.duration_seconds)}
        return JSONResponse({"text": transcript.text, "usage": usage})
    if kind == "verbose_json":
        return JSONResponse(_verbose(transcript, recording, form.temperature, task))
    written = transcript.to_format(cast(TranscriptFormat, {"text": "txt"}.get(kind, kind)))
    return PlainTextResponse(written, media_type=_MEDIA_TYPES[kind])


def _verbose(transcript: Transcript, recording: Recording, temperature: float, task: Task) -> dict[str, Any]:
    """What is not known is left out or null: no probability is made up."""
    return {
        "task": task,
        "language": "english" if task == "translate" else "unknown",
        "duration": recording.duration_seconds,
        "text": transcript.text,
        "finish_reason": transcript.finish_reason,
        "segments": [
            _segment(number, segment, temperature)
            for number, segment in enumerate(one for one in transcript.segments if one.finish_reason != "silent")
        ],
        "usage": {"type": "duration", "seconds": math.ceil(recording.duration_seconds)},
    }


def _segment(number: int, segment: TranscriptSegment, temperature: float) -> dict[str, Any]:
    return {
        "id": number,
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": None,
        "compression_ratio": None,
        "no_speech_prob": None,
        "finish_reason": segment.finish_reason,
    }


async def _events(transcription: Transcription) -> AsyncGenerator[bytes, None]:
    segments = []
    async for segment in transcription.segments():
        segments.append(segment)
        text = segment.text.strip()
        if text:
            separated = text if len(Transcript(segments[:-1]).text) == 0 else f" {text}"
            yield event({"type": "transcript.text.delta", "delta": separated})
    usage = _usage(transcription.usage)
    yield event({"type": "transcript.text.done", "text": Transcript(segments).text, "usage": usage})


def _usage(usage: Usage) -> dict[str, Any]:
    read, made = usage.prompt_text + usage.prompt_audio, usage.answer_text + usage.answer_audio
    return {
        "type": "tokens",
        "input_tokens": read,
        "input_token_details": {"text_tokens": usage.prompt_text, "audio_tokens": usage.prompt_audio},
        "output_tokens": made,
        "total_tokens": read + made,
    }
