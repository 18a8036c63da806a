"""mini with its own engines behind the server: nobody hears another, who leaves is gone, what bursts comes back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from audiollm import AudioLLM
from audiollm.serving.engines.batching import BatchingEngine
from audiollm.serving.server import app_of
from audiollm.serving.settings import ServerSettings

from .conftest import served, until

TEXTS = (
    "Who traded the cable last Tuesday?",
    "Send it to the station.",
    "We meet at the old bridge at noon.",
    "The train leaves in ten minutes.",
)
VOICES = {"default": "", "low": "a man", "high": "a woman", "slow": "an old man, slowly"}
BEGINNING_BYTES = 2 * 2400  # a tenth of a second


@contextmanager
def running(mini: AudioLLM, engine: Any, **more: Any) -> Iterator[tuple[str, FastAPI]]:
    app = app_of(mini, ServerSettings(voices=VOICES), name="mini", engine=engine, **more)
    with served(app) as url:
        yield url, app


def say(url: str, number: int, seconds: float = 0.5) -> bytes:
    """What a client hears: its own text, voice and seed."""
    voice = list(VOICES)[number // len(TEXTS)]
    body = {"model": "mini", "input": TEXTS[number % len(TEXTS)], "voice": voice, "seed": number}
    answer = httpx.post(
        f"{url}/v1/audio/speech", json={**body, "response_format": "pcm", "max_seconds": seconds}, timeout=300
    )
    assert answer.status_code == 200, answer.text
    return answer.content


def write(url: str, number: int) -> str:
    """What a client reads."""
    messages = [{"role": "user", "content": TEXTS[number % len(TEXTS)]}]
    body = {"model": "mini", "messages": messages, "max_tokens": 12, "temperature": 1.0, "seed": number}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("numbers", [range(0, 16, 2), pytest.param(range(16), marks=pytest.mark.slow)])
def test_clients_with_four_voices_get_each_their_own(mini: AudioLLM, numbers: range) -> None:
    with running(mini, "batching", max_running=8) as (url, app):
        alone = [say(url, number) for number in numbers]
        read_alone = [write(url, number) for number in numbers]
        with ThreadPoolExecutor(2 * len(numbers)) as threads:
            texts = threads.map(lambda number: write(url, number), numbers)
            among = list(threads.map(lambda number: say(url, number), numbers))
            read_among = list(texts)
        until(lambda: app.state.server.answerer.admission.num_inside == 0)
    assert len({sound[:BEGINNING_BYTES] for sound in alone}) == len(numbers)
    # Codes are drawn with each one's own seed. A rounding that differs with the rows beside may turn one of hundreds,
    # but not whole answers, and never into what another one hears.
    for sound, own in zip(among, alone, strict=True):
        assert sound[:BEGINNING_BYTES] == own[:BEGINNING_BYTES]
    assert sum(one == other for one, other in zip(alone, among, strict=True)) >= len(numbers) - 2
    assert sum(one == other for one, other in zip(read_alone, read_among, strict=True)) >= len(numbers) - 2


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("engine", ["batching", "plain"])
def test_who_leaves_frees_the_place(mini: AudioLLM, engine: str, is_stream: bool) -> None:
    with running(mini, engine) as (url, app):
        answerer = app.state.server.answerer
        body = {"model": "mini", "input": " ".join(TEXTS), "stream": is_stream, "response_format": "pcm", "seed": 1}
        with httpx.Client(timeout=300) as client, ThreadPoolExecutor(1) as threads:
            if is_stream:
                with client.stream("POST", f"{url}/v1/audio/speech", json=body) as answer:
                    assert next(answer.iter_raw())
            else:
                leaving = threads.submit(httpx.post, f"{url}/v1/audio/speech", json=body, timeout=1.0)
                with pytest.raises(httpx.TimeoutException):
                    leaving.result()
        until(lambda: answerer.admission.num_inside == 0)
        until(lambda: not (answerer.engine._running if engine == "batching" else answerer.engine._answers))
        assert say(url, 1)


def test_an_engine_that_bursts_is_told_of_and_comes_back(mini: AudioLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(mini, "batching") as (url, app):
        assert isinstance(app.state.server.answerer.engine, BatchingEngine)
        wanted = write(url, 3)
        with monkeypatch.context() as broken:
            broken.setattr(mini.model, "forward", lambda *_, **__: 1 / 0)
            body = {"model": "mini", "messages": [{"role": "user", "content": "Good day"}]}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_failed"
        assert "division" not in answer.text
        assert write(url, 3) == wanted
        assert httpx.get(f"{url}/ready").status_code == 200
