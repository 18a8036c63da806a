"""Models behind an OpenAI-compatible endpoint, through the `openai` client.

Nothing that a server sends is trusted: a request ends when its time is over, however slowly the answer drips in, and an
answer is read up to a size. Whatever is no chat completion is that request's error, and is asked for again where that
may help.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

from audiollm.data.files.text import HALF_CHARACTERS

from .base import ChatError, ChatMessage, ChatReply, EndpointSettings, without_thoughts

logger = logging.getLogger(__name__)

_ValueT = TypeVar("_ValueT")

OPENAI_HOST = "api.openai.com"
OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0  # as the client's own
LONGEST_ASKED_PAUSE_SECONDS = 120.0  # a server that asks for more, or for nonsense, gets our own pause
RETRIED_STATUS = (408, 409, 429)  # and all from 500
MAX_BODY_BYTES = 16 * 2**20
SHOWN_CHARACTERS = 200  # of a server's message


class _PassingError(ChatError):
    """A request failed in a way that may pass.

    Args:
        message: what happened.
        pause_seconds: what the server asks for; None: nothing.
    """

    def __init__(self, message: str, pause_seconds: float | None = None) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


class EndpointModel:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        url: the base URL, such as ``http://localhost:8000/v1``.
        model: its name there; None: the only one there is.
        key_variable: environment variable that holds the key; None: only OpenAI itself gets one (``OPENAI_API_KEY``).
            A key never goes to a server that nobody named it for.
        settings: timeout and retries.

    Raises:
        ChatError: if no model is named and the endpoint cannot tell the only one; if it refuses the key.
        ImportError: if the client is not installed.
        ValueError: if the environment variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key_variable: str | None = None,
        settings: EndpointSettings | None = None,
    ) -> None:
        if find_spec("openai") is None:
            raise ImportError("chat endpoints need the openai client: pip install 'audiollm[label]'")
        self.url = url
        self._settings = settings or EndpointSettings()
        self._key = endpoint_key(url, key_variable)
        self._clients = threading.local()  # one that hangs is closed, and must be nobody else's
        self._model = model or self._only_model()

    @property
    def name(self) -> str:
        """The model's name at the endpoint."""
        return self._model

    def ask(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        """See `audiollm.data.chat.base.ChatModel`."""
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [_as_json(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if seed is not None:
            request["seed"] = seed
        return self._retried(lambda num_retries: _read(self._send(partial(_completion, request)), num_retries))

    def _retried(self, attempt: Callable[[int], _ValueT]) -> _ValueT:
        """What an attempt gives, which is told how many failed before it."""
        num_retries = 0
        while True:
            try:
                return attempt(num_retries)
            except _PassingError as error:
                if num_retries >= self._settings.max_retries:
                    raise ChatError(f"{self.url}: {error}, {self._attempts()}") from error
                logger.info("%s: %s; asking again", self.url, error)
                time.sleep(_pause_seconds(num_retries) if error.pause_seconds is None else error.pause_seconds)
                num_retries += 1

    def _only_model(self) -> str:
        body = self._retried(lambda _: self._send(lambda client: client.models.with_streaming_response.list()))
        try:
            names = [str(model["id"]) for model in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ChatError(f"{self.url} does not list its models; name the one to use", fatal=True) from error
        if len(names) != 1:
            shown = ", ".join(names)[:SHOWN_CHARACTERS] or "none"
            raise ChatError(f"{self.url} has {len(names)} models: name one of {shown}", fatal=True)
        return names[0]

    def _send(self, call: Callable[[Any], AbstractContextManager[Any]]) -> bytes:
        """Makes a request once and gives the response's body.

        Raises:
            _PassingError: if it fails in a way that may pass.
            ChatError: if it is refused.
        """
        import openai

        try:
            return self._in_time(call)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            fix = "check the URL, the model's name and the key"
            raise ChatError(f"{self.url}: {_said(error)}; {fix}", fatal=True) from error
        except openai.APIStatusError as error:
            if error.status_code in RETRIED_STATUS or error.status_code >= 500:
                raise _PassingError(_said(error), _asked_pause(error.response.headers.get("retry-after"))) from error
            raise ChatError(f"{self.url}: {_said(error)}") from error
        except openai.APITimeoutError as error:
            raise _PassingError(self._late()) from error
        except (openai.OpenAIError, *_transport_errors()) as error:
            cause = error.__cause__ or error
            raise _PassingError(f"no connection ({_said(cause)})") from error

    def _in_time(self, call: Callable[[Any], AbstractContextManager[Any]]) -> bytes:
        """The body of a response that is there in time.

        The client's timeouts are of single reads, which a server that drips never exceeds. So the request has a thread
        of its own, which is left behind, with its connections closed, when the time is over.
        """
        client = self._client()
        answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

        def request() -> None:
            try:
                with call(client) as response:
                    answers.put(_body(response))
            except Exception as error:  # handed over whole to the thread that waits
                answers.put(error)

        threading.Thread(target=request, name="chat request", daemon=True).start()
        try:
            answer = answers.get(timeout=self._settings.timeout_seconds)
        except queue.Empty as error:
            client.close()
            del self._clients.own
            raise _PassingError(self._late()) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _client(self) -> Any:
        """The client of this thread, which makes one request at a time."""
        import openai

        if not hasattr(self._clients, "own"):
            timeout = openai.Timeout(self._settings.timeout_seconds, connect=CONNECT_SECONDS)
            self._clients.own = openai.OpenAI(base_url=self.url, api_key=self._key, timeout=timeout, max_retries=0)
        return self._clients.own

    def _late(self) -> str:
        return f"no answer within {self._settings.timeout_seconds:g} s"

    def _attempts(self) -> str:
        return f"tried {self._settings.max_retries + 1} times"


def _completion(request: dict[str, Any], client: Any) -> AbstractContextManager[Any]:
    response: AbstractContextManager[Any] = client.chat.completions.with_streaming_response.create(**request)
    return response


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the client's transport raises while a body is read; which library it is depends on the client's version."""
    found = [import_module(name) for name in ("httpx2", "httpx") if find_spec(name) is not None]
    return tuple(error for library in found for error in (library.HTTPError, library.StreamError))


def _body(response: Any) -> bytes:
    chunks, num_bytes = [], 0
    for chunk in response.iter_bytes():
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > MAX_BODY_BYTES:
            raise _PassingError(f"the reply is longer than {MAX_BODY_BYTES / 2**20:g} MiB")
    return b"".join(chunks)


def _asked_pause(retry_after: str | None) -> float | None:
    """The pause that a server asks for, in seconds; None if it asks for none that makes sense."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds if 0 < seconds <= LONGEST_ASKED_PAUSE_SECONDS else None


def _pause_seconds(num_retries: int) -> float:
    """How long to wait before asking again, jittered so that clients do not come back all at once."""
    return min(FIRST_PAUSE_SECONDS * 2**num_retries, LONGEST_PAUSE_SECONDS) * random.uniform(0.75, 1)


def endpoint_key(url: str, variable: str | None) -> str:
    """The key for an endpoint; servers that want none get a word, which the client insists on."""
    if variable is None and urlsplit(url).hostname != OPENAI_HOST:
        return "none"
    variable = variable or OPENAI_KEY_VARIABLE
    if not os.environ.get(variable):
        raise ValueError(f"the environment variable {variable} is not set; it must hold the key for {url}")
    return os.environ[variable]


def _as_json(message: ChatMessage) -> dict[str, Any]:
    if message.audio is None:
        return {"role": message.role, "content": message.text}
    sound = {"data": base64.b64encode(message.audio).decode(), "format": "wav"}
    parts: list[dict[str, Any]] = [{"type": "input_audio", "input_audio": sound}]
    if message.text:
        parts.append({"type": "text", "text": message.text})
    return {"role": message.role, "content": parts}


def _read(body: bytes, num_retries: int) -> ChatReply:
    """The reply in a response's body.

    Raises:
        _PassingError: if there is none, saying what is wrong.
    """
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"]
        is_cut = choice.get("finish_reason") == "length"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        shown = body[:SHOWN_CHARACTERS].decode(errors="replace")
        raise _PassingError(f"the reply is no chat completion: {shown!r}") from error
    if text is not None and not isinstance(text, str):
        raise _PassingError(f"the reply is no chat completion: its content is of type {type(text).__name__}, not text")
    if text is None or not without_thoughts(text):
        raise _PassingError("the reply is empty" + (": max_tokens were reached before anything was said" * is_cut))
    return ChatReply(
        text=HALF_CHARACTERS.sub("\ufffd", without_thoughts(text)),
        prompt_tokens=_count(completion, "prompt_tokens"),
        completion_tokens=_count(completion, "completion_tokens"),
        num_retries=num_retries,
        is_cut=is_cut,
    )


def _count(completion: dict[str, Any], name: str) -> int:
    """A number of tokens; 0 where the server tells none."""
    usage = completion.get("usage")
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0


def _said(error: Any) -> str:
    """An error on one line; a refusal with its status."""
    return " ".join(str(getattr(error, "message", error)).split())[:SHOWN_CHARACTERS]
