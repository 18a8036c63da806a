"""The engine of a server: many answers at once, by transformers' continuous batching, each by rules of its own."""
# Shapes: N rows of requests whose next token is due, W logits.

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from torch import Tensor

from audiollm.generation.narrow_head import Columns, united
from audiollm.generation.plan import context_of
from audiollm.modeling import AudioLLM

from .base import EngineError, TokenRequest
from .continuous import CacheSizes, ContinuousBatch
from .queues import TokenQueue, check_request
from .rules import TokenRules

logger = logging.getLogger(__name__)

_TOKENS_OF_REQUEST = 2048
"""How many tokens of prompt and answer the cache holds for each request that may run, where nothing else is said."""

_STOPPED = "the engine was stopped"

_MAX_FAILURES = 3
"""How often in a row the batch may fail before the engine gives up; an answer that comes to its end starts anew."""


class BatchingEngine:
    """Answers up to ``max_running`` requests together, and lets each in as soon as one is done.

    A request starts when the cache has room for all of its prompt and the longest answer that it may get, so that what
    runs never has to give way. They start in the order in which they came.

    Where a step fails, the answers that are being made end with an EngineError, and those that wait go on in a new
    batch; after three failures without an answer in between the engine is no longer ready.

    Args:
        model: the Audio-LLM. It keeps its implementation of attention: load it with "flash_attention_2" for a GPU.
        max_running: how many requests are computed at once.
        page_size: tokens of a page of the cache.
        num_pages: pages of the cache; None: 2,048 tokens for each request that may run, or the model's context where
            that is shorter.
        max_batch_tokens: tokens of a step; longer prompts come in over several.

    Raises:
        ValueError: if a size is too small.
    """

    def __init__(
        self,
        model: AudioLLM,
        *,
        max_running: int = 8,
        page_size: int = 64,
        num_pages: int | None = None,
        max_batch_tokens: int = 512,
    ) -> None:
        if max_running < 1 or max_batch_tokens < max_running:
            raise ValueError(
                f"max_running={max_running}, max_batch_tokens={max_batch_tokens}: use at least 1, and a token for each "
                "request that may run"
            )
        self._model = model
        self._context = context_of(model.model.config)
        if num_pages is None:
            tokens = min(self._context or _TOKENS_OF_REQUEST, _TOKENS_OF_REQUEST)
            num_pages = max_running * -(-tokens // max(page_size, 1))
        self._sizes = CacheSizes(page_size, num_pages, max_batch_tokens)
        self._max_running = max_running
        self._numbers = count()
        self._waiting: deque[_Answer] = deque()
        self._running: dict[str, _Answer] = {}
        self._free_pages = num_pages
        self._batch: ContinuousBatch | None = None
        self._steps: _Steps | None = None
        self._restart: asyncio.Task[None] | None = None
        self._num_failures = 0
        self._has_failed = False
        self._why_not: str | None = "the engine is not running: start it"

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests now."""
        return self._why_not is None

    @property
    def has_failed(self) -> bool:
        """Whether it has failed so often that it has given up."""
        return self._has_failed

    @property
    def max_running(self) -> int:
        """How many requests are computed at once."""
        return self._max_running

    @property
    def num_running(self) -> int:
        """How many requests are computed now."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """How many requests wait their turn."""
        return len(self._waiting)

    async def start(self) -> None:
        """Takes the memory; does nothing where it runs. Raises EngineError if the memory cannot be had."""
        if self.is_ready:
            return
        self._num_failures = 0
        self._has_failed = False
        await self._new_batch()
        self._why_not = None

    async def stop(self) -> None:
        """Ends it, and leaves the model as it was; answers that are being made, or wait, end with an EngineError."""
        self._why_not = _STOPPED
        self._fail_all()
        if self._restart is not None:
            await asyncio.gather(self._restart, return_exceptions=True)
        batch, self._batch = self._batch, None
        if batch is not None:
            await asyncio.to_thread(batch.stop)

    async def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        """As in `audiollm.serving.engines.base.Engine`; a cancelled request ends before the next step."""
        if self._why_not is not None:
            raise EngineError(self._why_not)
        answer = self._answer_to(request)
        self._waiting.append(answer)
        self._let_in()
        try:
            async for ids in answer.queue:
                yield ids
        finally:
            self._drop(answer)

    def _answer_to(self, request: TokenRequest) -> _Answer:
        plan, model = request.plan, self._model
        check_request(request, model.model.config.get_text_config().vocab_size, self._context)
        num_tokens = len(request.prompt_ids) + plan.max_new_tokens
        if (num_pages := self._sizes.pages_for(num_tokens)) > self._sizes.num_pages:
            held = self._sizes.num_pages * self._sizes.page_size
            raise ValueError(
                f"request {request.request_id}: the prompt has {len(request.prompt_ids)} tokens and the answer may "
                f"take {plan.max_new_tokens}, but the engine's cache holds {held}: shorten the prompt, ask for a "
                "shorter answer, or start the engine with more num_pages"
            )
        rules = TokenRules(plan, model.vocabulary, len(model.processor.tokenizer), request.prompt_ids)
        return _Answer(request, f"{next(self._numbers)}: {request.request_id}", rules, num_pages)

    def _let_in(self) -> None:
        """Starts what has waited longest, while there is room."""
        while self._waiting and len(self._running) < self._max_running:
            answer = self._waiting[0]
            if answer.num_pages > self._free_pages:
                return  # what came later and is shorter waits too, or a long one might never start
            if self._batch is None or self._steps is None:
                return  # a new batch is on its way
            self._steps.rules[answer.key] = answer.rules
            plan = answer.request.plan
            if not self._batch.add(
                answer.key,
                answer.request.prompt_ids,
                plan.max_new_tokens,
                plan.eos_token_ids,
                partial(self._failed, answer),
            ):
                return  # it is about to tell that it has failed
            self._waiting.popleft()
            self._running[answer.key] = answer
            self._free_pages -= answer.num_pages

    def _drop(self, answer: _Answer) -> None:
        """Frees the place of an answer that nobody reads any more, or that is over."""
        if answer in self._waiting:
            self._waiting.remove(answer)
        if self._running.pop(answer.key, None) is None:
            return
        self._free_pages += answer.num_pages
        if self._steps is not None:
            self._steps.rules.pop(answer.key, None)
        if self._batch is not None and not answer.rules.is_over:
            self._batch.cancel(answer.key)
        self._let_in()

    def _fail(self, answer: _Answer, error: EngineError) -> None:
        answer.queue.end(error)
        self._drop(answer)

    def _failed(self, answer: _Answer, told: str) -> None:
        self._fail(answer, EngineError(f"request {answer.request.request_id}: {told}"))

    def _fail_all(self) -> None:
        waiting, running = list(self._waiting), list(self._running.values())
        self._waiting.clear()
        for answer in (*waiting, *running):
            self._fail(answer, EngineError(f"request {answer.request.request_id}: {self._why_not}"))

    async def _new_batch(self) -> None:
        loop = asyncio.get_running_loop()
        steps = _Steps(self, loop)
        batch = ContinuousBatch(
            self._model.model,
            max_running=self._max_running,
            sizes=self._sizes,
            chooser=steps,
            following=steps,
            on_end=steps.end,
        )
        steps.batch = batch
        try:
            await asyncio.to_thread(batch.start)
        except BaseException:
            await asyncio.to_thread(batch.stop)
            raise
        self._batch, self._steps = batch, steps
        if not batch.is_running:  # what it told of its end came too early
            self._ended(batch, batch.error)

    def _ended(self, batch: ContinuousBatch | None, error: BaseException | None) -> None:
        """The thread of a batch has ended."""
        if batch is None or batch is not self._batch or self._why_not == _STOPPED:
            return  # it has never started, or was stopped
        logger.error("continuous batching failed: %s", error, exc_info=error)
        self._num_failures += 1
        self._batch, self._steps = None, None
        self._restart = asyncio.create_task(self._start_again(batch))
        for answer in list(self._running.values()):
            self._fail(answer, _error_of(answer.request, error))

    async def _start_again(self, failed: ContinuousBatch) -> None:
        """Puts a new batch in the place of one that has failed."""
        await asyncio.to_thread(failed.stop)
        try:
            if self._num_failures >= _MAX_FAILURES:
                raise EngineError(f"the engine has failed {self._num_failures} times in a row: see the log")
            if self._why_not is None:  # it was not stopped meanwhile
                await self._new_batch()
        except EngineError as error:
            self._has_failed = True
            self._why_not = str(error)
            self._fail_all()
        finally:
            self._restart = None
        self._let_in()

    def _take(self, chosen: Sequence[tuple[str, int | Exception, bool]]) -> None:
        """Hands out what a step has chosen."""
        for key, token, is_last in chosen:
            answer = self._running.get(key)
            if answer is None:
                continue  # nobody reads it any more
            if isinstance(token, Exception):
                self._fail(answer, _error_of(answer.request, token))
                continue
            answer.queue.put([token])
            if is_last:
                self._num_failures = 0
                answer.queue.end()
                self._drop(answer)


class _Answer:
    """One request on its way: where its tokens come out, and what it takes of the cache."""

    def __init__(self, request: TokenRequest, key: str, rules: TokenRules, num_pages: int) -> None:
        self.request = request
        self.key = key
        self.rules = rules
        self.num_pages = num_pages
        self.queue = TokenQueue()


class _Steps:
    """What the thread of a batch knows of the answers; it meets the engine in the event loop alone."""

    def __init__(self, engine: BatchingEngine, loop: asyncio.AbstractEventLoop) -> None:
        self.rules: dict[str, TokenRules] = {}  # of those that run; put in by the event loop, read in the thread
        self.columns: Columns | None = None
        self.batch: ContinuousBatch | None = None
        self._engine = engine
        self._loop = loop

    def prepare(self, request_ids: Sequence[str], num_new: Sequence[int]) -> None:
        """Finds out what may follow, which is all that the head has to compute."""
        some = [(key, self.rules.get(key), length) for key, length in zip(request_ids, num_new, strict=True)]
        for key, rules, length in some:  # a check of what transformers is trusted with
            if rules is not None and rules.num_new_tokens != length:
                raise EngineError(f"request {key} has {rules.num_new_tokens} tokens here, {length} in transformers")
        self.columns = united(rules.columns() for _, rules, _ in some if rules is not None)

    def choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        """The next tokens, of which the engine is told; a row that fails takes no other with it."""
        chosen: list[tuple[str, int | Exception, bool]] = []
        tokens = []
        for key, logits_W in zip(request_ids, logits, strict=True):
            rules = self.rules.get(key)
            token = 0  # of a request that has been cancelled meanwhile
            if rules is not None:
                try:
                    token = rules.choose(logits_W)
                    chosen.append((key, token, rules.is_over))
                except Exception as error:  # raised where the answer is read
                    self.rules.pop(key, None)
                    chosen.append((key, error, True))
            tokens.append(token)
        self._tell(self._engine._take, chosen)
        return tokens

    def end(self, error: BaseException | None) -> None:
        """Tells the engine that the thread has ended."""
        self._tell(self._engine._ended, self.batch, error)

    def _tell(self, call: object, *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]


def _error_of(request: TokenRequest, cause: BaseException | None) -> EngineError:
    error = EngineError(f"request {request.request_id}: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
