"""A chat with a server that speaks OpenAI's HTTP interface: audiollm's own, or any other."""
# Shapes: N samples.

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from audiollm.data.audio.writing import wav_file

from .turns import AnswerError, End, Pieces, Recording, Sound, Turn, answered

RATE = 24_000
"""Hz, of the PCM of OpenAI's interface."""
NO_KEY = "none"
"""The client wants one in any case."""
_USUAL_VOICE = "alloy"  # where a server does not say which it has


def key_of(variable: str | None) -> str:
    """The key in an environment variable; none is sent unless one is named.

    Raises:
        ValueError: there is no such variable.
    """
    if variable is None:
        return NO_KEY
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"--key-variable {variable}: the environment has no such variable, or it is empty")
    return key


class Remote:
    """Answers by a server.

    Args:
        url: where it is, up to ``/v1``.
        key: for it.
        name: of the model; None takes the one that it has.
        generation: settings of every answer: ``max_new_tokens``, ``temperature`` and ``seed``, where given.

    Raises:
        ValueError: the package openai is missing.
        AnswerError: no server answers there, or it has several models.
    """

    def __init__(self, url: str, key: str, name: str | None, generation: dict[str, Any]) -> None:
        try:
            import openai
        except ImportError as error:
            raise ValueError(f"--url needs one more package ({error}): pip install 'audiollm[label]'") from error
        self._url = url
        self._openai: Any = openai
        self._client = openai.OpenAI(base_url=url, api_key=key)
        self._generation = generation
        self.name = name or self._only_model()

    @cached_property
    def voices(self) -> Sequence[str]:
        """As audiollm's server tells them beside its model."""
        with self._told():
            model = next((one for one in self._client.models.list() if one.id == self.name), None)
        named = getattr(model, "voices", None)
        return [one for one in named if isinstance(one, str)] if isinstance(named, list) else []

    def answer(self, turns: Sequence[Turn], *, is_spoken: bool, voice: str | None) -> Pieces:
        messages = self._messages(turns)
        settings = self._settings()
        if is_spoken:
            name, words = self._voice(voice)
            if words:
                messages[-1]["content"] = [*_parts(messages[-1]["content"]), _text(f"\n({words})")]
            settings |= {"modalities": ["text", "audio"], "audio": {"voice": name, "format": "pcm16"}}
        with self._told():
            yield from _pieces(
                self._client.chat.completions.create(model=self.name, messages=messages, stream=True, **settings)
            )

    def say(self, text: str, *, voice: str | None) -> Pieces:
        name, words = self._voice(voice)
        settings: dict[str, Any] = {"instructions": words} if words else {}
        if "seed" in self._generation:
            settings["extra_body"] = {"seed": self._generation["seed"]}
        with (
            self._told(),
            self._client.audio.speech.with_streaming_response.create(
                model=self.name, voice=name, input=text, response_format="pcm", **settings
            ) as response,
        ):
            samples = _Samples()
            for data in response.iter_bytes():
                yield from samples.take(data)
        yield End("stop")

    def _only_model(self) -> str:
        with self._told():
            names = [one.id for one in self._client.models.list()]
        if len(names) != 1:
            shown = ", ".join(names[:20]) or "none"
            raise AnswerError(f"{self._url} has {len(names)} models ({shown}): give one as --name")
        return str(names[0])

    def _settings(self) -> dict[str, Any]:
        names = {"max_new_tokens": "max_completion_tokens"}
        return {names.get(name, name): value for name, value in self._generation.items()}

    def _messages(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        for turn in [*answered(turns[:-1]), turns[-1]]:
            messages.append({"role": "user", "content": _content(turn)})
            if turn is not turns[-1]:
                # Its words, not its ``audio.id``: a server may have forgotten it, and another replica never had it.
                messages.append({"role": "assistant", "content": turn.answer})
        return messages

    def _voice(self, voice: str | None) -> tuple[str, str]:
        """A voice of the server by its name, and words for what it has no name for."""
        if not self.voices:
            return voice or _USUAL_VOICE, ""
        if voice is None or voice in self.voices:
            return voice or self.voices[0], ""
        return self.voices[0], voice

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the client in one line.

        Raises:
            AnswerError: in place of them.
        """
        try:
            yield
        except self._openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise AnswerError(f"no server answers at {self._url}: {_one_line(reason)}") from error
        except self._openai.APIStatusError as error:
            raise AnswerError(f"the server refused ({error.status_code}): {_message_of(error)}") from error
        except self._openai.APIError as error:
            raise AnswerError(f"the server broke off: {_one_line(error)}") from error
        except Exception as error:
            if not _is_of_transport(error):
                raise
            raise AnswerError(f"the connection to {self._url} broke: {_one_line(error)}") from error


def _is_of_transport(error: Exception) -> bool:
    """Whether an error is of the client's HTTP library, which it lets through while a stream is read."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _message_of(error: Any) -> str:
    """What the server itself says, without the rest of its body."""
    body = error.body if isinstance(error.body, dict) else {}
    return _one_line(body.get("message") or error)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    if not turn.recordings:
        return turn.question
    parts = [_recording(one) for one in turn.recordings]
    return parts + ([_text(turn.question)] if turn.question else [])


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_text(content)] if isinstance(content, str) else content


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _recording(recording: Recording) -> dict[str, Any]:
    """A recording as a part; the interface knows WAV and MP3, so that others become WAV."""
    if recording.name.lower().endswith(".mp3"):
        data, form = recording.content, "mp3"
    else:
        data, form = wav_file(recording.content), "wav"
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}


class _Samples:
    """Bytes of 16-bit PCM to samples, wherever they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> Iterator[Sound]:
        data = self._rest + data
        length = len(data) // 2 * 2
        self._rest = data[length:]
        if length:
            yield Sound(np.frombuffer(data[:length], "<i2").astype(np.float32) / 32768, RATE)


def _pieces(stream: Any) -> Pieces:
    """Text and sound of a streamed answer, and how it ended."""
    samples, reason = _Samples(), None
    with stream:
        for chunk in stream:
            if not chunk.choices:
                continue
            delta = chunk.choices[0].delta
            reason = chunk.choices[0].finish_reason or reason
            if delta.content:
                yield delta.content
            spoken = _spoken(delta)
            if spoken.get("transcript"):
                yield spoken["transcript"]
            if spoken.get("data"):
                yield from samples.take(_decoded(spoken["data"]))
    yield End("lost" if reason is None else "length" if reason == "length" else "stop")


def _spoken(delta: Any) -> Mapping[str, Any]:
    """The ``audio`` of a delta, for which older versions of the client have no type."""
    audio = getattr(delta, "audio", None) or {}
    return audio if isinstance(audio, Mapping) else vars(audio)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise AnswerError(f"the server sent sound that is no base64: {error}") from error
