"""What a chat model is, wherever it runs: its messages, its replies and its errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

# Models that think aloud may put it into the reply.
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class ChatError(ValueError):
    """A model gave no answer; the message says which one and why.

    Args:
        message: what happened and what to do.
        fatal: whether no other request to this model can succeed: a wrong key, an unknown model.
    """

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


@dataclass(frozen=True)
class ChatMessage:
    """One turn.

    Attributes:
        role: who speaks.
        text: what is said; may be empty if there is audio.
        audio: a WAV file, heard before the text is read.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    audio: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ChatReply:
    """What a model answered, and what it took.

    Attributes:
        text: the answer, without blanks around it and without thoughts (``<think>…</think>``).
        prompt_tokens: as the model counts them; 0 if it does not say.
        completion_tokens: the same for the answer.
        num_retries: requests that failed before this one.
        is_cut: whether the answer was cut off at ``max_tokens``.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    num_retries: int = 0
    is_cut: bool = False


class ChatModel(Protocol):
    """A model that answers messages; called from several threads."""

    @property
    def name(self) -> str:
        """What records and reports call it."""
        ...

    def ask(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        """Answers a conversation.

        Args:
            messages: the turns so far; the last one is the user's.
            max_tokens: the answer is cut off there.
            temperature: 0 for the likeliest answer.
            seed: of what is drawn, for models that draw.

        Raises:
            ChatError: if there is no answer, after all retries.
        """
        ...


def without_thoughts(text: str) -> str:
    """The answer alone."""
    return _THOUGHTS.sub("", text).strip()


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How an endpoint is called.

    Attributes:
        timeout_seconds: a request whose answer is not there whole after so long has failed, however it drips in.
        max_retries: failed requests (no connection, timeout, 408, 409, 429, 5xx, a reply that is no reply) are repeated
            so often, after a pause that doubles from 0.5 s to 8 s, or that the server asks for (up to 2 minutes).
    """

    timeout_seconds: float = 120.0
    max_retries: int = 8

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={self.timeout_seconds}: use a positive duration, such as 120")
        if self.max_retries < 0:
            raise ValueError(f"max_retries={self.max_retries}: use 0 or more")
