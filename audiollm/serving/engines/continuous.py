"""transformers' continuous batching of one model, with every private name of it that is used, and a check of them.

Tried with transformers 5.23. Another version that has changed something, as 5.17 has, is refused by name when the
engine starts; ``tests/audiollm/serving/engines/test_continuous.py`` says it before.
"""
# Shapes: N rows of requests whose next token is due, W logits.

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from audiollm.generation.narrow_head import Following, can_narrow, narrowed

from .base import EngineError

try:
    from transformers import ContinuousBatchingConfig
    from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager
    from transformers.generation.continuous_batching.requests import GenerationOutput, RequestState
except ImportError as error:
    raise ImportError(
        f"transformers {transformers.__version__} has no continuous batching as this package knows it ({error}): use "
        "the version in constraints.txt, or the plain engine"
    ) from error

_CLOSING_SECONDS = 30.0
"""How long to wait for the thread of a manager, which ends between two steps."""

_NAMES: dict[Any, tuple[str, ...]] = {
    ContinuousBatchingManager: ("_run_generation_loop", "start", "stop", "add_request", "cancel_request", "is_running"),
    ContinuousBatchingLogitsProcessor: ("fill_defaults", "prepare_tensor_args", "__call__"),
    RequestState: ("generated_len",),
}
_SETTINGS = frozenset(
    (
        *("page_size", "num_blocks", "max_batch_tokens", "max_requests_per_batch", "allow_block_sharing"),
        *("use_async_batching", "use_cuda_graph", "auto_switch_to_flash", "safety_margin", "scheduler_type"),
    )
)


def missing_names() -> list[str]:
    """The names of transformers that are used here and that the installed version lacks."""
    names = [f"{owner.__name__}.{name}" for owner, some in _NAMES.items() for name in some if not hasattr(owner, name)]
    known = {one.name for one in fields(ContinuousBatchingConfig)}
    return [*names, *(f"ContinuousBatchingConfig.{name}" for name in sorted(_SETTINGS - known))]


@dataclass(frozen=True)
class CacheSizes:
    """How much memory the keys and values take, and how much is computed at once.

    Attributes:
        page_size: tokens of a page; a request takes whole ones.
        num_pages: pages there are, for all that run.
        max_batch_tokens: tokens of one step: one of each request that writes, and parts of prompts that come in. Where
            attention needs a mask, that takes this times all tokens of the cache.

    Raises:
        ValueError: if one is too small.
    """

    page_size: int
    num_pages: int
    max_batch_tokens: int

    def __post_init__(self) -> None:
        for name, least in (("page_size", 4), ("num_pages", 1), ("max_batch_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: use {least} or more")

    def pages_for(self, num_tokens: int) -> int:
        """The pages that so many tokens take."""
        return -(-num_tokens // self.page_size)


class Chooser(Protocol):
    """Says what follows in each request; called in the thread of the batch."""

    def prepare(self, request_ids: Sequence[str], num_new: Sequence[int]) -> None:
        """Looks at the requests of the next step before it is computed.

        Args:
            request_ids: of the N rows.
            num_new: how many tokens each of their answers has.
        """

    def choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        """The next token of each of the rows ``[N, W]``."""


class ContinuousBatch:
    """Requests to one model, computed together in a thread; what is left when it ends, or fails, is never answered.

    Args:
        model: the causal LM.
        max_running: most requests of a step.
        sizes: of the cache.
        chooser: takes the tokens.
        following: what may follow in the rows of a step.
        on_end: called at the end of the thread, with the error that ended it.

    Raises:
        EngineError: if the installed transformers has changed what this needs.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_running: int,
        sizes: CacheSizes,
        chooser: Chooser,
        following: Following,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        missing = missing_names()
        if missing:
            raise _changed(f"there is no {', '.join(missing)}")
        # Greedy to transformers: what the chooser leaves is one token.
        config = GenerationConfig(do_sample=False, max_new_tokens=1, eos_token_id=-1, pad_token_id=0)
        settings = ContinuousBatchingConfig(
            page_size=sizes.page_size,
            num_blocks=sizes.num_pages,
            max_batch_tokens=sizes.max_batch_tokens,
            max_requests_per_batch=max_running,
            # Pages that are kept for a prompt that may come again would take those that are promised to requests.
            allow_block_sharing=False,
            safety_margin=0.0,
            scheduler_type="fifo",
            # Both would run ahead of what is chosen in Python: a graph replays it, and the newest token is not there.
            use_async_batching=False,
            use_cuda_graph=False,
            # The model computes as it was loaded, here as elsewhere.
            auto_switch_to_flash=False,
        )
        self._model = model
        self._following = following
        self._on_end = on_end
        self._manager = model.init_continuous_batching(config, settings)
        self._attach(_Choosing(chooser))
        self._loop = self._manager._run_generation_loop
        self._manager._run_generation_loop = self._run

    def start(self) -> None:
        """Starts the thread and waits until the memory is there.

        Raises:
            EngineError: if it cannot be had.
        """
        # A thread inherits this from the one that starts it; otherwise a program that forgets `stop` would never end.
        starting = threading.Thread(target=self._manager.start, daemon=True)
        starting.start()
        starting.join()
        while self._manager.batch_processor is None and self._manager.is_running():
            time.sleep(0.005)
        if not self._manager.is_running():
            raise EngineError(f"continuous batching could not start: {self.error}") from self.error

    def stop(self) -> None:
        """Ends the thread after its step, and leaves the model as it was; what has not been answered is dropped."""
        self._manager.stop(block=True, timeout=_CLOSING_SECONDS, hard_stop=True)
        self._manager.destroy()

    def add(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        eos_token_ids: Sequence[int],
        on_failure: Callable[[str], None],
    ) -> bool:
        """Takes a request; called in the event loop.

        Args:
            request_id: one that no other has had.
            prompt_ids: of the prompt.
            max_new_tokens: of the answer.
            eos_token_ids: ids that end it.
            on_failure: called in the event loop with what went wrong, if the batch fails at this request.

        Returns:
            Whether it was taken: a batch that has failed takes none.
        """

        def take(output: GenerationOutput) -> None:
            if output.error is not None:
                on_failure(output.error)

        self._manager.register_result_handler(request_id, take)
        taken = self._manager.add_request(
            list(prompt_ids),
            request_id=request_id,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(eos_token_ids) or [-1],
        )
        return taken is not None

    def cancel(self, request_id: str) -> None:
        """Drops a request before the next step."""
        self._manager.cancel_request(request_id)
        router = self._manager.output_router
        with router._lock:
            router.result_handlers.pop(request_id, None)  # one of a cancelled request is never called, nor dropped

    def _attach(self, processor: _Choosing) -> None:
        processors = self._manager.logit_processor
        try:
            processors.clear()  # whatever the model's own settings ask for
            processors.logits_processor.append(processor)
            processors.tensors_required += 1
            processors.do_processing = True
            processors._retrieve_processors_kwargs()
            if not hasattr(self._manager.output_router, "result_handlers"):
                raise AttributeError("OutputRouter.result_handlers")
        except AttributeError as error:
            raise _changed(str(error)) from error

    def _run(self) -> None:
        model = self._model
        narrowing: AbstractContextManager[None] = nullcontext()
        if can_narrow(model):
            narrowing = narrowed(model, self._following)
        try:
            with narrowing:
                self._loop()
        finally:
            self._on_end(self.error)

    @property
    def is_running(self) -> bool:
        """Whether its thread is."""
        return self._manager.is_running()

    @property
    def error(self) -> BaseException | None:
        """What ended it."""
        return self._manager.background_thread_status.fatal_error


class _Choosing(ContinuousBatchingLogitsProcessor):
    """Leaves of each row the token that the chooser takes. transformers hands the rows over twice: first whose they are
    (`prepare_tensor_args`), then their logits, both in its thread and in the same order."""

    supported_kwargs: dict[str, type] = {}  # noqa: RUF012 - as in the base class
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._request_ids: list[str] = []

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """Nothing of a row is in a tensor."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        states = [request.state for request in requests_with_new_token]
        self._request_ids = [state.request_id for state in states]
        self._chooser.prepare(self._request_ids, [state.generated_len() for state in states])
        return torch.zeros(len(states), dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        num_rows = len(self._request_ids)
        if len(scores) < num_rows:
            raise _changed(f"{num_rows} requests came with {len(scores)} rows of logits")
        if num_rows:  # rows behind are of prompts of which there is more to come
            chosen = torch.tensor(self._chooser.choose(self._request_ids, scores[:num_rows]), device=scores.device)
            scores[:num_rows].fill_(-torch.inf).scatter_(1, chosen[:, None], 0.0)
        return scores


def _changed(what: str) -> EngineError:
    return EngineError(
        f"continuous batching of transformers {transformers.__version__} is not as this package knows it: {what}; use "
        "the version in constraints.txt, or the plain engine"
    )
