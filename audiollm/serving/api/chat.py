"""``POST /v1/chat/completions``: text and recordings in, text and speech out, whole or as a stream."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from audiollm.data.conversation.types import Conversation
from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.settings import GenerationSettings
from audiollm.serving.answering.answerer import AnswerRequest, Finished, SoundPiece, TextPiece, Usage

from .chat_types import ChatRequest, voice_name
from .errors import refused, request_id_of, told
from .messages import read_messages
from .middleware import key_of
from .responses import DONE, EVENT_STREAM, SoundBytes, begun, event, streamed, whole_sound
from .state import ServerState, state_of, unless_left
from .tool_calls import ToolCall, split_tool_calls, without_tool_calls
from .voices import with_voice

router = APIRouter()
_PIECE_BYTES = 6  # three samples: base64 of as many bytes needs no padding, and clients join the pieces as they are


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answers a chat."""
    state = state_of(request)
    state.check_model(body.model)
    body.check()
    key = key_of(request)
    asked = await _answer_request(state, body, request_id_of(request), key)
    if body.stream:
        return await streamed(request, _chunks(state, body, asked, key), EVENT_STREAM, tells_errors=True)
    return JSONResponse(await unless_left(request, _completion(state, body, asked, key)))


async def _answer_request(state: ServerState, body: ChatRequest, request_id: str, key: str) -> AnswerRequest:
    """The request in the model's own terms.

    Raises:
        ApiError: something in it cannot be used; its field is named.
    """
    if body.speaks and not state.answerer.model.can_speak:
        raise refused("modalities", "this model has no decoder, so it answers in text alone")
    voice = None
    if body.audio is not None:
        name = voice_name(body.audio.voice)
        voice = state.voices.get(name, "audio.voice")
    messages = await read_messages(state, body.messages, key)
    if voice is not None and voice.words:
        messages = with_voice(messages, voice.words)
    return AnswerRequest(
        messages=Conversation("messages", messages),
        settings=_settings(state, body),
        decoding=None if voice is None else DecodingSettings(prompt=voice.prompt, seed=body.seed),
        has_sound=body.speaks,
        tools=body.tools if body.tool_choice != "none" else None,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        request_id=request_id,
    )


def _settings(state: ServerState, body: ChatRequest) -> GenerationSettings:
    max_tokens = body.max_completion_tokens or body.max_tokens
    most = state.settings.max_tokens
    if max_tokens is not None and max_tokens > most:
        raise refused("max_completion_tokens", f"{max_tokens} is more than {most}, which is as much as one may ask for")
    settings: dict[str, Any] = {
        "modalities": {"text", *(["audio"] if body.speaks else [])},
        "max_new_tokens": max_tokens,
        "min_seconds": body.min_seconds,
        "max_seconds": body.max_seconds,
    }
    if body.temperature == 0:
        if (body.top_p, body.top_k) != (None, None):
            raise refused("temperature", "0 takes the most likely token: leave out top_p and top_k")
        settings["do_sample"] = False
    else:
        settings |= {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
    # A seed without anything to draw changes nothing; clients send one in any case.
    draws = body.temperature != 0 and (body.speaks or (body.temperature, body.top_p, body.top_k) != (None, None, None))
    settings["seed"] = body.seed if draws else None
    try:
        return GenerationSettings(**settings)
    except ValueError as error:
        raise told(error, "") from error


async def _completion(state: ServerState, body: ChatRequest, asked: AnswerRequest, key: str) -> dict[str, Any]:
    sound: list[Tensor] = []
    async with state.answering(asked) as coming:
        async for piece in coming:
            if isinstance(piece, SoundPiece):
                sound.append(piece.waveform)
            elif isinstance(piece, Finished):
                finished = piece
    text, calls = split_tool_calls(finished.text) if asked.tools else (finished.text, [])
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": text or None, "tool_calls": [call.to_dict() for call in calls]}
    if body.audio is not None:
        message |= {"content": None, "audio": await _spoken(state, body.audio.format, finished, text, sound, key)}
    return {
        "id": _completion_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": state.model_name,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(finished, calls)}
        ],
        "usage": usage_of(finished.usage),
    }


async def _spoken(
    state: ServerState, form: str, finished: Finished, transcript: str, sound: Sequence[Tensor], key: str
) -> dict[str, Any]:
    rate = state.answerer.sounds.sample_rate
    data = await state.read(lambda: whole_sound(sound, rate, form))
    identifier = f"audio_{uuid.uuid4().hex}"
    return {
        "id": identifier,
        "data": base64.b64encode(data).decode(),
        "expires_at": state.kept.keep(identifier, finished.text, finished.codes, key),
        "transcript": transcript,
    }


async def _chunks(state: ServerState, body: ChatRequest, asked: AnswerRequest, key: str) -> AsyncGenerator[bytes, None]:
    head = {
        "id": _completion_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": state.model_name,
    }
    has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **({"usage": None} if has_usage else {})})

    speech = _StreamedSpeech(state.answerer.sounds.sample_rate) if body.speaks else None
    texts = without_tool_calls() if asked.tools else None
    async with state.answering(asked) as coming:
        pieces = await begun(coming)
        yield chunk({"role": "assistant", "content": None if body.speaks else ""})
        async for piece in pieces:
            if isinstance(piece, TextPiece):
                text = piece.text if texts is None else texts.send(piece.text)
                if text:
                    yield chunk({"content": text} if speech is None else {"audio": speech.transcript(text)})
            elif isinstance(piece, SoundPiece) and speech is not None:
                if delta := speech.delta(piece):
                    yield chunk({"audio": delta})
            elif isinstance(piece, Finished):
                finished = piece
        calls = split_tool_calls(finished.text)[1] if texts is not None else []
        if texts is not None and (rest := texts.send(None)):
            yield chunk({"content": rest} if speech is None else {"audio": speech.transcript(rest)})
        for index, call in enumerate(calls):
            yield chunk({"tool_calls": [{"index": index, **call.to_dict()}]})
        if speech is not None:
            if delta := speech.rest():
                yield chunk({"audio": delta})
            expires_at = state.kept.keep(speech.identifier, finished.text, finished.codes, key)
            yield chunk({"audio": {**speech.named(), "expires_at": expires_at}})
        yield chunk({}, _finish_reason(finished, calls))
        if has_usage:
            yield event({**head, "choices": [], "usage": usage_of(finished.usage)})
        yield DONE


class _StreamedSpeech:
    """The ``audio`` of deltas: its id comes once, and every piece of data but the last joins without padding."""

    def __init__(self, sample_rate: int) -> None:
        self.identifier = f"audio_{uuid.uuid4().hex}"
        self._bytes, self._held = SoundBytes("pcm", sample_rate), b""
        self._is_named = False

    def named(self) -> dict[str, Any]:
        """The id, if it has not been told yet."""
        if self._is_named:
            return {}
        self._is_named = True
        return {"id": self.identifier}

    def transcript(self, text: str) -> dict[str, Any]:
        return {**self.named(), "transcript": text}

    def delta(self, piece: SoundPiece) -> dict[str, Any]:
        return self._data(self._bytes.write(piece.waveform.numpy()), is_last=False)

    def rest(self) -> dict[str, Any]:
        return self._data(self._bytes.close(), is_last=True)

    def _data(self, data: bytes, is_last: bool) -> dict[str, Any]:
        data = self._held + data
        length = len(data) if is_last else len(data) // _PIECE_BYTES * _PIECE_BYTES
        data, self._held = data[:length], data[length:]
        return {**self.named(), "data": base64.b64encode(data).decode()} if data else {}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens as OpenAI tells them."""
    prompt, answer = usage.prompt_text + usage.prompt_audio, usage.answer_text + usage.answer_audio
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {
            "audio_tokens": usage.prompt_audio,
            "text_tokens": usage.prompt_text,
            "cached_tokens": 0,
        },
        "completion_tokens_details": {"audio_tokens": usage.answer_audio, "text_tokens": usage.answer_text},
    }


def _finish_reason(finished: Finished, calls: Sequence[ToolCall]) -> str:
    return "tool_calls" if calls and finished.finish_reason == "stop" else finished.finish_reason


def _completion_id() -> str:
    # Not by the request's id, which clients choose, and proxies that try again use twice.
    return f"chatcmpl-{uuid.uuid4().hex}"
