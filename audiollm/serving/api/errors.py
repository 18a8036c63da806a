"""What a client is told when something is wrong: always in OpenAI's shape, never a traceback."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from audiollm.data.audio.opening import AudioError
from audiollm.serving.answering.admission import BusyError
from audiollm.serving.answering.answerer import DeadlineError
from audiollm.serving.engines.base import EngineError
from audiollm.serving.sound.pyav import PyAVMissingError
from audiollm.serving.sound.uploads import UploadError

logger = logging.getLogger(__name__)

_MOST_CHARACTERS = 2000  # of a message: it may quote what a request holds
_NO_FIELDS = frozenset({"body", "query", "path", "form", "str", "int", "float", "bool", "dict", "list"})
_TYPE_NAME = re.compile(r"[\[(]|^[A-Z]")
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP.
        message: what is wrong and what to do.
        param: the field of the request that it is about.
        code: a word for programs.
        headers: more headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """``{"error": …}``, as clients of OpenAI read it."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        message = self.message if len(self.message) <= _MOST_CHARACTERS else f"{self.message[:_MOST_CHARACTERS]} …"
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def refused(param: str, message: str) -> ApiError:
    """Something in a field of the request that cannot be had here."""
    return ApiError(400, f"{param}: {message}", param=param, code="unsupported_value")


def told(error: BaseException, request_id: str, *, param: str | None = None) -> ApiError:
    """What a client is told of an error.

    Args:
        error: what was raised. Only errors that our own checks raise are told by their message.
        request_id: by which the log is found.
        param: the field of the request that a wrong value belongs to, if that is known.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        headers = {"Retry-After": str(error.retry_after_seconds)}
        return ApiError(429, str(error), code="server_busy", headers=headers)
    if isinstance(error, DeadlineError):
        return ApiError(504, str(error), code="deadline_exceeded", headers={"x-should-retry": "false"})
    if isinstance(error, EngineError):
        logger.error("request %s: the engine failed: %s", request_id, error)
        return ApiError(503, f"the engine failed: try again (request {request_id})", code="engine_failed")
    if isinstance(error, UploadError):
        return ApiError(error.status, str(error), param=error.name, code=error.code)
    if isinstance(error, PyAVMissingError):
        return ApiError(400, str(error), param=param, code="unsupported_value")
    if isinstance(error, (AudioError, ValueError)):
        return ApiError(400, str(error), param=param, code="invalid_value")
    logger.error("request %s failed", request_id, exc_info=error)
    message = f"this server failed: its log tells why (request {request_id})"
    return ApiError(500, message, code="internal_error", headers={"x-should-retry": "false"})


def request_id_of(request: Request) -> str:
    """The name of a request in messages and logs."""
    return str(request.scope.get("request_id", ""))


def install_handlers(app: FastAPI) -> None:
    """Has every error of an app told in one shape."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        return told(error, request_id_of(request)).response()

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _of_validation(error).response()

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _of_http(request, error).response()

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)


def _of_validation(error: RequestValidationError) -> ApiError:
    # Of a value that may be of several types there is an error for each: the one that got furthest tells most.
    furthest = max(error.errors(), key=lambda one: len(one["loc"]))
    param = _param(furthest["loc"])
    if furthest["type"] == "extra_forbidden":
        return ApiError(400, f"{param}: is not supported here: leave it out", param=param, code="unknown_parameter")
    if furthest["type"] == "json_invalid":
        why = furthest.get("ctx", {}).get("error", furthest["msg"])
        return ApiError(400, f"the body is no JSON: {why}", code="no_json")
    return ApiError(400, f"{param or 'the body'}: {furthest['msg']}", param=param, code="invalid_value")


def _param(place: Sequence[str | int]) -> str | None:
    """The place of a value, such as ``messages[0].content``, without what pydantic says of types on the way."""
    param = ""
    for one in place:
        if isinstance(one, int):
            param += f"[{one}]"
        elif one not in _NO_FIELDS and not _TYPE_NAME.search(one):
            param += f".{one}" if param else one
    return param or None


def _of_http(request: Request, error: HTTPException) -> ApiError:
    if isinstance(error.__cause__, ApiError):  # raised while the body was read
        return error.__cause__
    path = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        hint = "" if request.url.path.startswith("/v1/") else "; OpenAI's begin with /v1: end base_url with it"
        return ApiError(404, f"{path}: there is no such route here; /openapi.json lists them{hint}", code="unknown_url")
    if error.status_code == 405:
        headers = dict(error.headers or {})
        message = f"{path}: this route takes {headers.get('Allow', 'another method')}"
        return ApiError(405, message, code="method_not_allowed", headers=headers)
    return ApiError(error.status_code, str(error.detail), code="invalid_request")
