"""A server on this machine, with an engine whose answers are written down beforehand."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile as sf
import uvicorn
from fastapi import FastAPI

from audiollm import AudioLLM
from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.answering.model import ServedModel
from audiollm.serving.api.app import build_app
from audiollm.serving.engines.base import EngineError, TokenRequest
from audiollm.serving.settings import ServerSettings


@dataclass
class ScriptedEngine:
    """Answers with ids that a function makes of the request.

    Attributes:
        answer: the ids of an answer.
        seconds: before each of them.
        failing_at: raises an EngineError in place of the id at this index.
    """

    answer: Callable[[TokenRequest], Sequence[int]]
    seconds: float = 0.0
    failing_at: int | None = None
    max_running: int = 4
    is_ready: bool = True
    num_running: int = 0
    requests: list[TokenRequest] = field(default_factory=list)

    async def start(self) -> None:
        self.is_ready = True

    async def stop(self) -> None:
        self.is_ready = False

    async def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        self.requests.append(request)
        self.num_running += 1
        try:
            for index, token_id in enumerate(list(self.answer(request))[: request.plan.max_new_tokens]):
                await asyncio.sleep(self.seconds)
                if index == self.failing_at:
                    raise EngineError("the engine has burst")
                yield [token_id]
        finally:
            self.num_running -= 1


@pytest.fixture(scope="session")
def mini() -> AudioLLM:
    model = AudioLLM.from_pretrained()
    model.processor.load_audio_tokenizer()
    return model


@pytest.fixture
def writes(mini: AudioLLM) -> Callable[..., list[int]]:
    """The ids of an answer: texts, and lists of codes as audio segments, in order."""

    def ids(*parts: str | Sequence[int]) -> list[int]:
        found: list[int] = []
        for part in parts:
            if isinstance(part, str):
                found += mini.processor.plain_token_ids([part])[0]
            else:
                found += mini.vocabulary.wrap(list(part))
        return [*found, mini.processor.tokenizer.eos_token_id]

    return ids


@pytest.fixture
def scripted(writes: Callable[..., list[int]]) -> ScriptedEngine:
    return ScriptedEngine(lambda request: writes("Good morning."))


@pytest.fixture
def app_with(mini: AudioLLM) -> Callable[..., FastAPI]:
    """An app of mini, by an engine and settings."""

    def build(engine: ScriptedEngine, **settings: object) -> FastAPI:
        checked = ServerSettings(**settings)  # type: ignore[arg-type]
        answerer = Answerer(
            ServedModel.of(mini, "mini"),
            engine,
            max_waiting=checked.max_waiting,
            deadline_seconds=checked.deadline_seconds,
            max_prompt_tokens=checked.max_prompt_tokens,
        )
        return build_app(answerer, checked)

    return build


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of a server of an app, in a thread of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture
def serve_app() -> Callable[[FastAPI], object]:
    return served


def wav(seconds: float = 0.5, rate: int = 16_000, hertz: float = 300.0) -> bytes:
    """A tone as a file."""
    buffer = io.BytesIO()
    sf.write(buffer, 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate), rate, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def tone() -> bytes:
    return wav()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
