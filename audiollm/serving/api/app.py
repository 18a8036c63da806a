"""All routes as one app."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.settings import ServerSettings

from . import chat, models
from .audio import speech, tokens, transcriptions, voice_routes
from .errors import install_handlers
from .middleware import Gate
from .realtime import route as realtime
from .state import ServerState

_ERRORS = {
    400: "The request is wrong; `param` names the field.",
    401: "No such API key.",
    403: "Not allowed.",
    404: "No such model, voice or route.",
    408: "The rest of the request did not come.",
    413: "Larger or longer than this server takes.",
    429: "As many requests as this server takes; `Retry-After` says when to come again.",
    500: "The server failed.",
    503: "The engine failed.",
    504: "It took too long.",
}


def build_app(answerer: Answerer, settings: ServerSettings) -> FastAPI:
    """The app of a server; the engine starts and stops with it.

    Args:
        answerer: answers.
        settings: limits and defaults.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        await answerer.start()
        try:
            yield
        finally:
            await answerer.stop()

    responses: dict[int | str, dict[str, Any]] = {status: {"description": text} for status, text in _ERRORS.items()}
    # FastAPI's own pages of the routes load their scripts from elsewhere.
    app = FastAPI(
        title="audiollm",
        version=version("audiollm"),
        lifespan=lifespan,
        responses=responses,
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = state = ServerState(answerer, settings)
    for module in (chat, speech, transcriptions, voice_routes, tokens, realtime, models):
        app.include_router(module.router)
    install_handlers(app)
    app.add_middleware(
        Gate,
        api_keys=settings.api_keys,
        max_connections_per_key=settings.max_connections_per_key,
        max_body_bytes=settings.max_body_bytes,
        idle_seconds=settings.idle_seconds,
        metrics=state.metrics,
    )
    return app
