"""A server from a model's name to an open port: what is served, by which engine, with which app."""

from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import dataclass
from typing import Literal

import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from audiollm.modeling import AudioLLM
from audiollm.program import ProgramError
from audiollm.tokenizer.base import AudioTokenizer

from .answering.answerer import Answerer
from .answering.model import ServedModel
from .api.app import build_app
from .engines.base import Engine, MayFail
from .engines.batching import BatchingEngine
from .engines.plain import PlainEngine
from .engines.remote import VllmEngine
from .settings import ServerSettings
from .web.inspector.routes import Inspector
from .web.inspector.routes import router as inspector_router
from .web.page import mount_page

EngineName = Literal["batching", "plain", "vllm"]
VLLM_KEY_VARIABLE = "AUDIOLLM_VLLM_KEY"
"""Environment variable of the key that a vLLM server asks for."""

MAX_PORT = 65535
_NO_SUCH_ADDRESS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # such as the one of IPv6 where that is switched off

logger = logging.getLogger(__name__)


class ServerError(ProgramError):
    """The server has ended though nobody told it to; whatever supervises it starts it again."""


@dataclass(frozen=True, eq=False)
class Page:
    """The page.

    Attributes:
        compare_tokenizer: a second audio tokenizer, which its inspector shows beside the model's.
        compare_name: what that is called.
    """

    compare_tokenizer: AudioTokenizer | None = None
    compare_name: str = ""


def app_of(
    model: AudioLLM,
    settings: ServerSettings,
    *,
    name: str,
    engine: Literal["batching", "plain"] = "batching",
    max_running: int = 8,
    page: Page | None = None,
    own_sound_process: bool = False,
) -> FastAPI:
    """The app that serves a model in memory.

    Args:
        model: an Audio-LLM.
        settings: limits and defaults.
        name: by which clients call the model.
        engine: "batching" answers many requests together, "plain" one after the other.
        max_running: how many are answered together.
        page: what the page at ``/`` has beside the routes; None: there is no page.
        own_sound_process: sound is made in a process of its own: worth its memory where both compute on processors. A
            program that asks for it needs ``if __name__ == "__main__":`` around what it runs.
    """
    running: Engine = BatchingEngine(model, max_running=max_running) if engine == "batching" else PlainEngine(model)
    app = _app(ServedModel.of(model, name), running, settings, own_sound_process)
    if page is not None:
        add_page(app, Inspector(model.model, page.compare_tokenizer, page.compare_name))
    return app


def add_page(app: FastAPI, inspector: Inspector) -> bool:
    """Puts the page, and the routes of its inspector, behind the routes of an app; returns False without Gradio.

    Args:
        app: whose routes it uses.
        inspector: what can be looked at.
    """
    app.state.inspector = inspector
    app.include_router(inspector_router)
    return mount_page(app)


def app_of_vllm(
    folder: str,
    settings: ServerSettings,
    *,
    name: str,
    url: str,
    model: str | None = None,
    max_running: int = 64,
    page: Page | None = None,
) -> FastAPI:
    """The app that serves a model whose tokens a vLLM server computes.

    Args:
        folder: the Audio-LLM's folder or Hub id; its LLM is not loaded.
        settings: limits and defaults.
        name: by which clients call the model.
        url: of vLLM's OpenAI interface.
        model: the model's name there; None: the only one there is.
        max_running: requests that it gets at once.
        page: as for `app_of`.

    Raises:
        ValueError: if the folder is no Audio-LLM.
    """
    served = ServedModel.without_weights(folder, name)
    key = os.environ.get(VLLM_KEY_VARIABLE)
    engine = VllmEngine(url, served.processor, model=model, api_key=key, max_running=max_running)
    app = _app(served, engine, settings)
    if page is not None:
        add_page(app, Inspector(None, page.compare_tokenizer, page.compare_name))
    return app


def _app(model: ServedModel, engine: Engine, settings: ServerSettings, own_sound_process: bool = False) -> FastAPI:
    answerer = Answerer(
        model,
        engine,
        max_waiting=settings.max_waiting,
        deadline_seconds=settings.deadline_seconds,
        max_prompt_tokens=settings.max_prompt_tokens,
        own_sound_process=own_sound_process,
    )
    return build_app(answerer, settings)


def check_port(host: str, port: int) -> None:
    """Finds out whether a server could listen, before a model is loaded for it.

    Args:
        host: address to listen at.
        port: likewise; 0, a free one, always can be.

    Raises:
        ValueError: there is no such port or address, or another program has it, or it may not be had.
    """
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"--port {port}: use 0 (a free one) to {MAX_PORT}")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host}: is no address of this machine ({error})") from error
    told: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as tried:
                if os.name == "posix":  # as the server sets it: connections that have just ended are no hindrance
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
            return
        except OSError as error:
            told = error
            if error.errno not in _NO_SUCH_ADDRESS:
                break
    assert told is not None  # a name has an address, or getaddrinfo fails
    advice = {errno.EADDRINUSE: "name another --port", errno.EACCES: "name a --port from 1024 on"}
    what_to_do = advice.get(told.errno or 0, "name another --host")
    raise ValueError(f"nothing can listen at {host}, port {port} ({told.strerror}): {what_to_do}") from told


def run_app(app: FastAPI, *, host: str, port: int, grace_seconds: int = 30) -> None:
    """Serves until a signal ends it: what is being answered is answered to its end, for some time.

    Args:
        app: what is served.
        host: address to listen at.
        port: likewise; 0 takes a free one.
        grace_seconds: how long answers may still take after the signal.

    Raises:
        ServerError: its engine has failed for good.
        SystemExit: it cannot start, such as where the port is taken or vLLM is not there; the log says why.
    """
    config = uvicorn.Config(
        _WithoutTraceback(app),
        host=host,
        port=port,
        log_level="info",
        access_log=False,  # addresses and paths are figures of /metrics
        timeout_graceful_shutdown=grace_seconds,
        ws_max_size=24 * 2**20,  # above what an event may hold, so that a larger one is told of and not cut off
        server_header=False,
    )
    logging.getLogger("uvicorn.error").addFilter(_WithoutAddresses())
    server = _Server(config, app.state.server.answerer.engine)
    server.run()
    if server.engine_has_failed:
        raise ServerError("the engine has failed for good: the log tells why")


class _WithoutAddresses(logging.Filter):
    """Leaves out the lines with which uvicorn tells of each websocket, and whose it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged."""
        return '"WebSocket ' not in str(record.msg)


class _Server(uvicorn.Server):
    """Ends, as if it were told to, once its engine has failed for good: a server that only refuses helps nobody."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine
        self.engine_has_failed = False

    async def on_tick(self, counter: int) -> bool:
        """Looks at the engine, ten times a second."""
        if isinstance(self._engine, MayFail) and self._engine.has_failed:
            self.engine_has_failed = True
            return True
        return await super().on_tick(counter)


class _WithoutTraceback:
    """Tells why an app cannot start in one line, the last of the traceback that Starlette tells."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                message = {**message, "message": message["message"].strip().rpartition("\n")[2]}
            await send(message)

        await self._app(scope, receive, told if scope["type"] == "lifespan" else send)
