"""``GET /v1/models``, ``/health`` and ``/ready``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .state import ServerState, state_of

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The model that is served."""
    return {"object": "list", "data": [_facts(state_of(request))]}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> dict[str, Any]:
    """One model."""
    state = state_of(request)
    state.check_model(name)
    return _facts(state)


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """The server runs."""
    return {"status": "ok"}


@router.get("/ready")
@router.head("/ready", include_in_schema=False)
async def ready(request: Request) -> JSONResponse:
    """The engine takes requests; 503 while it does not."""
    is_ready = state_of(request).answerer.engine.is_ready
    return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(state_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _facts(state: ServerState) -> dict[str, Any]:
    served = state.answerer.model
    tasks = ["chat", *(["transcription"] if served.can_listen else []), *(["speech"] if served.can_speak else [])]
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "audiollm",
        "tasks": tasks,
        "context_tokens": served.context,
        "codebook_size": served.processor.vocabulary.codebook_size,
        "voices": [voice.name for voice in state.voices] if served.can_speak else [],
    }
