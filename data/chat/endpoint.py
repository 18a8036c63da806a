"""Models behind an OpenAI-compatible endpoint, through the `openai` client.

The client repeats failed requests with growing, jittered pauses and obeys ``Retry-After``. What it leaves to us are
replies that came but are none: text in place of JSON, no choices, an empty answer.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .base import ChatError, ChatMessage, ChatReply, EndpointSettings, without_thoughts

logger = logging.getLogger(__name__)

OPENAI_HOST = "api.openai.com"
OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0  # as the client's own
SHOWN_CHARACTERS = 200  # of a server's message


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
        try:
            import openai
        except ImportError as error:
            raise ImportError("chat endpoints need the openai client: pip install 'audiollm[label]'") from error
        self.url = url
        self._settings = settings or EndpointSettings()
        timeout = openai.Timeout(self._settings.timeout_seconds, connect=CONNECT_SECONDS)
        self._client = openai.OpenAI(
            base_url=url,
            api_key=endpoint_key(url, key_variable),
            timeout=timeout,
            max_retries=self._settings.max_retries,
        )
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
        num_retries = 0
        while True:
            left = self._settings.max_retries - num_retries
            completions = self._client.with_options(max_retries=left).chat.completions
            response = self._send(partial(completions.with_raw_response.create, **request))
            num_retries += response.retries_taken
            reply, problem = _read(response.text, num_retries)
            if reply is not None:
                return reply
            if num_retries >= self._settings.max_retries:
                raise ChatError(f"{self.url}: {problem}; {self._attempts()}")
            logger.info("%s: %s; asking again", self.url, problem)
            time.sleep(_pause_seconds(num_retries))
            num_retries += 1

    def _only_model(self) -> str:
        models = self._send(self._client.models.with_raw_response.list)
        try:
            names = [model["id"] for model in json.loads(models.text)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ChatError(f"{self.url} does not list its models; name the one to use", fatal=True) from error
        if len(names) != 1:
            raise ChatError(f"{self.url} has {len(names)} models: name one of {', '.join(names) or 'none'}", fatal=True)
        return str(names[0])

    def _send(self, call: Callable[[], Any]) -> Any:
        """Makes a request; the client repeats it where that may help."""
        import openai

        try:
            return call()
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            fix = "check the URL, the model's name and the key"
            raise ChatError(f"{self.url}: {_said(error)}; {fix}", fatal=True) from error
        except openai.APIStatusError as error:
            raise ChatError(f"{self.url}: {_said(error)}") from error
        except openai.APITimeoutError as error:
            seconds = self._settings.timeout_seconds
            raise ChatError(f"{self.url}: no answer within {seconds:g} s, {self._attempts()}") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise ChatError(f"{self.url}: no connection ({cause}), {self._attempts()}") from error

    def _attempts(self) -> str:
        return f"tried {self._settings.max_retries + 1} times"


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


def _read(body: str, num_retries: int) -> tuple[ChatReply | None, str]:
    """The reply in a response's body; or None and what is wrong with it."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None, f"the reply is no chat completion: {body[:SHOWN_CHARACTERS]!r}"
    if not isinstance(text, str) or not without_thoughts(text):
        return None, "the reply is empty"
    usage = completion.get("usage") or {}
    reply = ChatReply(
        text=without_thoughts(text),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        num_retries=num_retries,
        is_cut=choice.get("finish_reason") == "length",
    )
    return reply, ""


def _said(error: Any) -> str:
    """A refusal with its status, on one line."""
    return " ".join(str(error.message).split())[:SHOWN_CHARACTERS]
