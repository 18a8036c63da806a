"""The server's process: it ends with an error where its engine has failed for good, so that it is started again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator

import httpx
import pytest

from audiollm import AudioLLM
from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.answering.model import ServedModel
from audiollm.serving.api.app import build_app
from audiollm.serving.engines.base import EngineError, TokenRequest
from audiollm.serving.server import ServerError, run_app
from audiollm.serving.settings import ServerSettings


class FailingEngine:
    """Gives up with its first request, or does not even start."""

    max_running = 1

    def __init__(self, *, can_start: bool = True) -> None:
        self.is_ready = False
        self.has_failed = False
        self._can_start = can_start

    async def start(self) -> None:
        if not self._can_start:
            raise EngineError("there is no memory")
        self.is_ready = True

    async def stop(self) -> None:
        self.is_ready = False

    async def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        await asyncio.sleep(0)
        self.is_ready, self.has_failed = False, True
        raise EngineError("secret: the memory is gone")
        yield []


@pytest.fixture(scope="module")
def mini() -> AudioLLM:
    return AudioLLM.from_pretrained()


def run_with(mini: AudioLLM, engine: FailingEngine, port: int) -> None:
    app = build_app(Answerer(ServedModel.of(mini, "mini"), engine), ServerSettings())
    run_app(app, host="127.0.0.1", port=port, grace_seconds=5)


def test_an_engine_that_has_failed_for_good_ends_the_server(mini: AudioLLM) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answers: list[httpx.Response] = []

    def ask() -> None:
        body = {"model": "mini", "messages": [{"role": "user", "content": "Good day"}]}
        with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:
            answers.append(client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(ServerError, match="failed for good") as error:
        run_with(mini, FailingEngine(), port)
    thread.join(30)
    assert error.value.status == 1
    assert answers[0].status_code == 503
    assert "secret" not in answers[0].text


def test_an_engine_that_cannot_start_ends_the_server(mini: AudioLLM) -> None:
    with pytest.raises(SystemExit) as error:
        run_with(mini, FailingEngine(can_start=False), 0)
    assert error.value.code != 0
