"""Clients of a server, each of which asks for one thing after the other and notes when what of it came."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from audiollm.program import ProgramError

_RATE, _SAMPLE_BYTES = 24_000, 2  # of pcm


class LoadError(ProgramError):
    """A server did not answer as it should."""


@dataclass(frozen=True)
class Ask:
    """One request: a path and a body that asks for events."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """What came of a request.

    Attributes:
        first_seconds: until the first text, or sound.
        seconds: until the end.
        sound_seconds: of the answer's sound.
        num_tokens: of the answer.
    """

    first_seconds: float
    seconds: float
    sound_seconds: float
    num_tokens: int


def speech(model: str, text: str, seed: int) -> Ask:
    """A text to be spoken."""
    body = {"model": model, "input": text, "voice": "default", "response_format": "pcm", "stream_format": "sse"}
    return Ask("/v1/audio/speech", {**body, "seed": seed})


def listening(model: str, recording: bytes, question: str) -> Ask:
    """A recording, and what is asked of it in words; the answer is text."""
    audio = {"type": "input_audio", "input_audio": {"data": base64.b64encode(recording).decode(), "format": "wav"}}
    message = {"role": "user", "content": [audio, {"type": "text", "text": question}]}
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 64}
    return Ask("/v1/chat/completions", {"model": model, "messages": [message], **options})


def ask(url: str, request: Ask, limit_seconds: float) -> Answered:
    """Sends a request and reads the answer to its end.

    Args:
        url: of the server.
        request: what is asked.
        limit_seconds: longest wait for anything.

    Raises:
        LoadError: no answer, or another than asked for; with what was said.
    """
    started = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=limit_seconds)
    first, sound_bytes, num_tokens = None, 0, 0
    try:
        connection.request("POST", request.path, json.dumps(request.body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise LoadError(f"{url}{request.path}: status {answer.status}: {answer.read(1000)!r}")
        for event in _events(answer):
            if "error" in event:
                raise LoadError(f"{url}{request.path}: {event['error']}")
            sound, has_text = _content(event)
            if first is None and (sound or has_text):
                first = time.perf_counter() - started
            sound_bytes += sound
            num_tokens = _tokens(event) or num_tokens
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LoadError(f"{url}{request.path}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if first is None:
        raise LoadError(f"{url}{request.path}: the answer is empty")
    seconds = time.perf_counter() - started
    return Answered(first, seconds, sound_bytes / _SAMPLE_BYTES / _RATE, num_tokens)


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        data = line.strip().removeprefix(b"data: ")
        if data and data != b"[DONE]" and not data.startswith(b":"):
            yield json.loads(data)


def _content(event: dict[str, Any]) -> tuple[int, bool]:
    """Bytes of sound in an event, and whether it holds text."""
    if "audio" in event:
        return len(base64.b64decode(event["audio"])), False
    deltas = [choice["delta"] for choice in event.get("choices", ())]
    return 0, any(delta.get("content") for delta in deltas)


def _tokens(event: dict[str, Any]) -> int:
    usage = event.get("usage") or {}
    return int(usage.get("output_tokens") or usage.get("completion_tokens") or 0)


def spoken(url: str, model: str, text: str, seed: int, limit_seconds: float) -> bytes:
    """A text as a WAV file, spoken by a server; errors as for `ask`."""
    body = {"model": model, "input": text, "response_format": "wav", "stream": False, "seed": seed}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=limit_seconds)
    try:
        connection.request("POST", "/v1/audio/speech", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise LoadError(f"{url}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise LoadError(f"{url}: a recording is asked for, but the status is {answer.status}: {content[:1000]!r}")
    return content


def load(
    url: str,
    requests: Sequence[Sequence[Ask]],
    limit_seconds: float,
    answered: Callable[[], object] = lambda: None,
) -> tuple[list[list[Answered]], float]:
    """Has clients ask at once, each for one thing after the other.

    Args:
        url: of the server.
        requests: of each client.
        limit_seconds: longest wait for anything.
        answered: called after each answer.

    Returns:
        The answers of each client, and the seconds until the last one had all of its own.

    Raises:
        LoadError: as for `ask`.
    """

    def client(own: Sequence[Ask]) -> list[Answered]:
        answers = []
        for request in own:
            answers.append(ask(url, request, limit_seconds))
            answered()
        return answers

    started = time.perf_counter()
    with ThreadPoolExecutor(len(requests), "client") as threads:
        answers = list(threads.map(client, requests))
    return answers, time.perf_counter() - started
