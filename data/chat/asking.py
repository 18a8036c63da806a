"""Asks many things of a model, a few at a time, and stops when it seems to have gone."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from .base import ChatError

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Outcome(Generic[ItemT, AnswerT]):
    """What became of an item.

    Attributes:
        item: what was asked.
        answer: what came back; None if ``error`` says why nothing did.
        error: why there is no answer.
    """

    item: ItemT
    answer: AnswerT | None = None
    error: ChatError | None = None


def ask_all(
    items: Iterable[ItemT],
    ask: Callable[[ItemT], AnswerT],
    *,
    concurrency: int,
    max_failures: int | None = None,
    in_order: bool = False,
    name: str = "ask",
) -> Generator[Outcome[ItemT, AnswerT]]:
    """Asks items, a few at a time, and yields what becomes of them.

    No more than twice ``concurrency`` items are taken ahead, so that they may be made as they are asked. Close the
    generator (`contextlib.closing`) to stop early: nothing more is asked then.

    Args:
        items: what to ask.
        ask: gives the answer to an item; called from several threads if ``concurrency`` is above 1, from the caller's
            own otherwise. A ChatError means that there is none; any other error ends it all.
        concurrency: items at a time.
        max_failures: stop when so many in a row fail, 1 or more; None: go on to the end.
        in_order: yield in the order of the items instead of as answers come.
        name: of the threads.

    Raises:
        ValueError: ``concurrency`` or ``max_failures`` is below 1.
        ChatError: (fatal) after the outcome of an item whose error is fatal, or of so many failures in a row; it is
            raised from that error and says the same.
    """
    for setting, value in (("concurrency", concurrency), ("max_failures", max_failures)):
        if value is not None and value < 1:
            raise ValueError(f"{setting}={value}: use 1 or more")
    num_failed_in_a_row = 0
    with closing(_outcomes(items, ask, concurrency, in_order, name)) as outcomes:
        for outcome in outcomes:
            yield outcome
            if outcome.error is None:
                num_failed_in_a_row = 0
                continue
            num_failed_in_a_row += 1
            if outcome.error.fatal or (max_failures is not None and num_failed_in_a_row >= max_failures):
                raise ChatError(str(outcome.error), fatal=True) from outcome.error


def _outcomes(
    items: Iterable[ItemT], ask: Callable[[ItemT], AnswerT], concurrency: int, in_order: bool, name: str
) -> Generator[Outcome[ItemT, AnswerT]]:
    def ask_one(item: ItemT) -> Outcome[ItemT, AnswerT]:
        try:
            return Outcome(item, ask(item))
        except ChatError as error:
            return Outcome(item, error=error)

    if concurrency == 1:  # a model on this machine may want the thread that loaded it
        for item in items:
            yield ask_one(item)
        return
    left = iter(items)
    pending: deque[Future[Outcome[ItemT, AnswerT]]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix=name) as executor:
        try:
            while True:
                for item in itertools.islice(left, 2 * concurrency - len(pending)):
                    pending.append(executor.submit(ask_one, item))
                if not pending:
                    return
                if in_order:
                    yield pending.popleft().result()
                    continue
                done, not_done = wait(pending, return_when=FIRST_COMPLETED)
                finished = [future for future in pending if future in done]  # a set has no order
                pending = deque(future for future in pending if future in not_done)
                for future in finished:
                    yield future.result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
