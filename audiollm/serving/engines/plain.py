"""The reference: one answer at a time, by transformers' ``generate`` as `AudioLLM.generate` runs it."""
# Shapes: S token ids of the prompt.

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from audiollm.generation.plan import context_of
from audiollm.generation.request import GenerationRequest
from audiollm.generation.streaming import StopRequest
from audiollm.modeling import AudioLLM

from .base import EngineError, TokenRequest
from .queues import TokenQueue, check_request


class PlainEngine:
    """Answers one request after the other, in a thread of its own; the others wait in the order in which they came.

    Args:
        model: the Audio-LLM; whoever uses it meanwhile shares the machine with the engine, nothing else.
    """

    def __init__(self, model: AudioLLM) -> None:
        self._model = model
        self._executor: ThreadPoolExecutor | None = None
        self._answers: set[_Answer] = set()

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests now."""
        return self._executor is not None

    @property
    def max_running(self) -> int:
        """One."""
        return 1

    async def start(self) -> None:
        """Makes it ready; does nothing where it is."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "audiollm-plain-engine")

    async def stop(self) -> None:
        """Ends it; answers that are still being made, or wait, end with an EngineError."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        for answer in self._answers:
            answer.stopping.set()
            answer.queue.end(EngineError("the engine was stopped"))
        await asyncio.to_thread(executor.shutdown, cancel_futures=True)

    async def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        """As in `audiollm.serving.engines.base.Engine`; a cancelled request ends at its next token."""
        if self._executor is None:
            raise EngineError("the engine is not running: start it")
        llm = self._model.model
        check_request(request, llm.config.get_text_config().vocab_size, context_of(llm.config))
        generation = GenerationRequest(
            llm,
            self._model.processor,
            input_ids=torch.tensor([request.prompt_ids]),
            attention_mask=None,
            plan=request.plan,
        )
        answer = _Answer(request.request_id, generation)
        self._answers.add(answer)
        future = self._executor.submit(answer.run)
        try:
            async for ids in answer.queue:
                yield ids
        finally:
            answer.stopping.set()
            future.cancel()
            self._answers.discard(answer)


@dataclass(eq=False)
class _Answer(BaseStreamer):
    """One answer, made in the engine's thread and read in the event loop."""

    request_id: str
    generation: GenerationRequest
    queue: TokenQueue = field(default_factory=TokenQueue)
    stopping: StopRequest = field(default_factory=StopRequest)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    saw_prompt: bool = False

    def run(self) -> None:
        """Makes it."""
        error: EngineError | None = None
        try:
            self.generation.run(self, self.stopping)
        except Exception as cause:  # whatever it was, it is raised where the answer is read
            error = EngineError(f"request {self.request_id}: {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        self._hand_over(None, error)

    def put(self, value: Tensor) -> None:
        """Takes the prompt ``[1, S]`` first, then one id at a time."""
        if self.saw_prompt:
            self._hand_over(value.tolist(), None)
        self.saw_prompt = True

    def end(self) -> None:
        """Nothing is kept back."""

    def _hand_over(self, ids: list[int] | None, error: EngineError | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            if ids is None:
                self.loop.call_soon_threadsafe(self.queue.end, error)
            else:
                self.loop.call_soon_threadsafe(self.queue.put, ids)
