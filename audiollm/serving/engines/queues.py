"""From the thread of an engine to whoever waits for the answer in the event loop; and what is refused before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from audiollm.generation.plan import ContextError

from .base import TokenRequest


class TokenQueue:
    """Ids of one answer on their way into the event loop in which the queue was made; all methods are called there."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[list[int] | Exception | None] = asyncio.Queue()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._is_over

    def put(self, ids: list[int]) -> None:
        """Hands ids on; does nothing behind the end."""
        if not self._is_over:
            self._queue.put_nowait(ids)

    def end(self, error: Exception | None = None) -> None:
        """Ends the answer, with an error that is raised where it is read; the first end counts."""
        if not self._is_over:
            self._is_over = True
            self._queue.put_nowait(error)

    async def __aiter__(self) -> AsyncIterator[list[int]]:
        while True:
            entries = [await self._queue.get()]
            while not self._queue.empty():  # what has come meanwhile goes out at once
                entries.append(self._queue.get_nowait())
            ids = [one for entry in entries if isinstance(entry, list) for one in entry]
            if ids:
                yield ids
            last = entries[-1]  # nothing comes behind an end
            if isinstance(last, Exception):
                raise last
            if last is None:
                return


def check_request(request: TokenRequest, vocab_size: int, context: int | None) -> None:
    """Refuses what no engine can answer.

    Args:
        request: as it came.
        vocab_size: rows of the model's embeddings.
        context: the most tokens of prompt and answer together; None for no limit.

    Raises:
        ValueError: naming what is wrong; a ContextError where prompt and answer are too long together.
    """
    name, ids, plan = request.request_id, request.prompt_ids, request.plan
    if not ids:
        raise ValueError(f"request {name}: the prompt holds no ids: give at least one")
    for one in ids:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < vocab_size:
            raise ValueError(
                f"request {name}: the prompt holds {one!r}: give ids of tokens, whole numbers from 0 to "
                f"{vocab_size - 1}"
            )
    if plan.turns is not None and len(plan.turns) != 1:
        raise ValueError(f"request {name}: the plan has turns for {len(plan.turns)} answers: give those of one")
    if plan.max_new_tokens < 1:
        raise ValueError(f"request {name}: max_new_tokens={plan.max_new_tokens}: use 1 or more")
    if context is not None and len(ids) + plan.max_new_tokens > context:
        raise ContextError(
            f"request {name}: the prompt has {len(ids)} tokens and the answer may take {plan.max_new_tokens}, but the "
            f"context holds {context}: shorten the prompt or ask for a shorter answer"
        )
