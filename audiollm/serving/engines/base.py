"""The interface of an engine: token ids of a prompt in, ids of the answer out while they are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from audiollm.generation.plan import AnswerPlan


@dataclass(frozen=True)
class TokenRequest:
    """One prompt to be answered.

    Attributes:
        request_id: its name in messages and logs; unique among those that run.
        prompt_ids: ids of the prompt, not padded.
        plan: what the answer may consist of, how long it may get, and how it is drawn; for one prompt.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    plan: AnswerPlan


class EngineError(RuntimeError):
    """An engine failed, or cannot be reached; not the fault of the request."""


class Engine(Protocol):
    """Answers many prompts; all methods are called from one event loop.

    The same request gives the same ids on every engine where it is greedy, and on one engine, alone or among others,
    where it is drawn with a seed.
    """

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests now."""

    @property
    def max_running(self) -> int:
        """How many requests are computed at once; more wait their turn, in the order in which they came."""

    async def start(self) -> None:
        """Makes it ready. Raises EngineError if it cannot be."""

    async def stop(self) -> None:
        """Ends it; answers that are still being made end with an EngineError."""

    def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        """New ids as they come, up to and with the one that ends the answer, or as many as the plan allows.

        Closing the generator (``aclose``) cancels the request, and frees its place within a second.

        Raises:
            ValueError: if the request cannot be answered: ids that are none, a prompt too long for the engine.
            EngineError: if the engine failed, before or while answering.
        """


@runtime_checkable
class MayFail(Protocol):
    """An engine that can fail for good, so that only a new process helps; others get ready again by themselves."""

    @property
    def has_failed(self) -> bool:
        """Whether it has given up."""
