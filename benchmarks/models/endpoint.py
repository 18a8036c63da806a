"""A model under test behind an OpenAI-compatible endpoint that takes ``input_audio``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audiollm.data.audio.writing import wav_file
from audiollm.data.chat.base import ChatError, ChatMessage, EndpointSettings
from audiollm.data.chat.endpoint import EndpointModel

from .base import AnswerSettings, ChatAnswer, ChatRequest


class EndpointUnderTest:
    """A model behind an endpoint, asked by several threads.

    Replies come without thoughts (``<think>…</think>`` at their beginning), as `audiollm.data.chat.endpoint` reads
    them.

    Args:
        url: the base URL.
        model: its name there; None: the only one.
        settings: how answers are generated.
        key_variable: environment variable that holds the key.
        concurrency: requests at a time.
        endpoint: timeout and retries.

    Raises:
        ChatError: if the endpoint cannot be reached or refuses the key.
        ImportError: if the client is not installed.
        ValueError: if the key is not set.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        settings: AnswerSettings,
        key_variable: str | None = None,
        concurrency: int = 8,
        endpoint: EndpointSettings | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: use 1 or more")
        self.concurrency = concurrency
        self._url, self.settings = url, settings
        self._model = EndpointModel(url, model, key_variable=key_variable, settings=endpoint)

    @property
    def decoding(self) -> dict[str, Any]:
        """See `AudioChatModel`."""
        return self.settings.to_dict()

    def describe(self) -> dict[str, str | None]:
        """See `AudioChatModel`; what runs behind an endpoint nobody can tell."""
        return {"name": self._model.name, "endpoint": self._url, "revision": None, "tokenizer_revision": None}

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer | ChatError]:
        """See `AudioChatModel`."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> ChatAnswer | ChatError:
        message = ChatMessage("user", request.text, wav_file(request.audio, self.settings.mono))
        settings = self.settings
        seed = settings.seed if settings.temperature else None
        try:
            reply = self._model.ask(
                [message], max_tokens=settings.max_new_tokens, temperature=settings.temperature, seed=seed
            )
        except ChatError as error:
            return error
        return ChatAnswer(reply.text, is_cut=reply.is_cut)
