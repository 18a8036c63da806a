"""What happens to every request: a name, a key that is looked at, limits, and figures. Plain ASGI.

None of it is a ``BaseHTTPMiddleware``: beside one, a request never learns that its client has left.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, told
from .metrics import Metrics

logger = logging.getLogger(__name__)

GUARDED = ("/v1/", "/metrics")
"""Beginnings of the paths that need one."""
KEY_PROTOCOL = "openai-insecure-api-key."
"""Beginning of the subprotocol of a websocket that is a key."""
_GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SOCKET_REFUSED = 1008  # the code of a websocket that is closed for a reason of policy


class Gate:
    """Names each request, asks for a key, counts connections, limits bodies and tells the figures.

    Args:
        app: what lies behind it.
        api_keys: one of them is asked for; empty: none is.
        max_connections_per_key: requests and sockets of one key at once.
        max_body_bytes: of a request.
        idle_seconds: how long a client of HTTP may send nothing of its request, or read nothing of its answer.
        metrics: is told of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_keys: Sequence[str],
        max_connections_per_key: int,
        max_body_bytes: int,
        idle_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]
        self._max_connections, self._max_body_bytes = max_connections_per_key, max_body_bytes
        self._idle_seconds = idle_seconds
        self._metrics = metrics
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = request_id = asked if _GOOD_ID.fullmatch(asked) else uuid.uuid4().hex
        is_http = scope["type"] == "http"
        watched = _Watched(send, request_id, self._idle_seconds if is_http else None)
        started = time.monotonic()
        try:
            await self._answer(scope, receive, watched)
        except ClientDisconnect:
            if watched.is_given_up:
                logger.warning("request %s: cut, as its client reads nothing of the answer", request_id)
            else:
                logger.info("request %s: its client has left", request_id)
        except Exception as error:
            if not is_http or watched.has_begun:
                raise
            await told(error, request_id).response()(scope, receive, watched)
        finally:
            if is_http:
                self._metrics.request_ended(route_of(scope), watched.status, time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(GUARDED):
            await self._app(scope, receive, send)
            return
        key = self._key(scope)
        if key is None:
            message = "no such API key: give one that this server knows, as Authorization: Bearer KEY"
            await _refuse(ApiError(401, message, code="invalid_api_key"), scope, receive, send)
            return
        if self._open[key] >= self._max_connections:
            error = ApiError(
                429,
                f"{self._open[key]} connections are open, which is as many as there may be: close some, or wait",
                code="too_many_connections",
                headers={"Retry-After": "1"},
            )
            await _refuse(error, scope, receive, send)
            return
        scope["api_key"] = key
        self._open[key] += 1
        try:
            await self._app(scope, _Bounded(scope, receive, self._max_body_bytes, self._idle_seconds), send)
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def _key(self, scope: Scope) -> str | None:
        """The key of a request, "" where none is asked for; None if it has none that is known."""
        if not self._keys:
            return ""
        offered = _offered(scope).encode("latin-1", "replace")  # as headers are decoded: the very bytes
        # All of them, whichever fits: how long it takes tells nothing.
        fitting = [key for key in self._keys if hmac.compare_digest(key, offered)]
        return fitting[0].decode() if fitting else None


def _offered(scope: Scope) -> str:
    """The key that a request brings: in its header, or, as browsers set none on a socket, among its subprotocols."""
    scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    named = [one for one in scope.get("subprotocols", ()) if one.startswith(KEY_PROTOCOL)]
    return named[0].removeprefix(KEY_PROTOCOL) if named else ""


class _Watched:
    """Sends, and knows whether an answer has begun and with which status.

    A client that reads nothing for too long is given up: it would keep its place for as long as it likes.
    """

    def __init__(self, send: Send, request_id: str, idle_seconds: float | None) -> None:
        self._send, self._request_id, self._idle_seconds = send, request_id, idle_seconds
        self.status, self.has_begun = 499, False  # nginx's number for a client that left before
        self.is_given_up = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            self.has_begun = True
            self.status = message.get("status", 101)
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        try:
            await asyncio.wait_for(self._send(message), self._idle_seconds)
        except asyncio.TimeoutError as error:
            self.is_given_up = True
            raise ClientDisconnect from error


class _Bounded:
    """Receives a body that is no longer than it may be, whatever its header says, and that keeps coming."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, idle_seconds: float) -> None:
        self._receive, self._max_bytes = receive, max_bytes
        self._idle_seconds: float | None = idle_seconds if scope["type"] == "http" else None
        self._num_bytes = 0
        length = Headers(scope=scope).get("content-length", "")
        self._promised = int(length) if length.isdecimal() else 0

    async def __call__(self) -> Message:
        if self._promised > self._max_bytes:
            raise self._error()
        try:
            message = await asyncio.wait_for(self._receive(), self._idle_seconds)
        except asyncio.TimeoutError as error:
            text = f"nothing more of the request came in {self._idle_seconds:g} s: send it again, in one go"
            raise ApiError(408, text, code="request_timeout", headers={"Connection": "close"}) from error
        if message["type"] == "http.request":
            if not message.get("more_body", False):
                self._idle_seconds = None  # what is waited for now is that the client leaves
            self._num_bytes += len(message.get("body", b""))
            if self._num_bytes > self._max_bytes:
                raise self._error()
        return message

    def _error(self) -> ApiError:
        message = f"the request is larger than {self._max_bytes} bytes, which is as much as this server takes"
        return ApiError(413, message, code="too_large", headers={"Connection": "close"})


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await error.response()(scope, receive, send)
        return
    await receive()  # the wish to connect
    await send({"type": "websocket.close", "code": _SOCKET_REFUSED, "reason": error.message[:120]})


def key_of(request: Request) -> str:
    """The key that a request came with; "" where none is asked for."""
    return str(request.scope.get("api_key", ""))


def route_of(scope: Scope) -> str:
    """The route's own pattern, so that figures are kept by route and not by address."""
    route = scope.get("route")
    return str(getattr(route, "path", None) or "other")
