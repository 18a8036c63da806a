"""``GET /v1/realtime``: who may open a session."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket

from ..errors import ApiError, refused
from ..state import ServerState
from .session import Session

router = APIRouter()
PROTOCOL = "realtime"
"""The subprotocol that browsers ask for, beside the one that is their key."""


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket) -> None:
    """A conversation, event by event."""
    state: ServerState = websocket.app.state.server
    try:
        _check(websocket, state)
    except ApiError as error:
        await websocket.send_denial_response(error.response())
        return
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", ()) else None)
    with state.metrics.session():
        await Session(websocket, state).run()


@router.get("/v1/realtime", include_in_schema=False)
async def realtime_without_upgrade() -> None:
    """What is told to clients, and through proxies, that ask for it as for any other route."""
    message = "/v1/realtime is a websocket: connect by ws:// or wss://; a proxy before the server has to pass `Upgrade`"
    raise ApiError(426, message, code="websocket_expected", headers={"Upgrade": "websocket"})


def _check(websocket: WebSocket, state: ServerState) -> None:
    """Raises ApiError for a session that cannot be had."""
    for name in websocket.query_params:
        if name != "model":
            raise refused(name, "is not supported here: leave it out")
    state.check_model(websocket.query_params.get("model", state.model_name))
    if not state.settings.api_keys and not _is_of_this_host(websocket):
        message = "pages of other hosts may open no session on a server without API keys: start it with one"
        raise ApiError(403, message, code="foreign_origin")


def _is_of_this_host(websocket: WebSocket) -> bool:
    """Whether no page of another host asks: browsers let any page connect to any host, this one too."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")
