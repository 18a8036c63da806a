"""Many questions at a time, until the model has gone."""

import threading
import time

import pytest

from audiollm.data.chat.asking import ask_all
from audiollm.data.chat.base import ChatError


def _ask(item):
    if item < 0:
        raise ChatError(f"no answer to {item}", fatal=item == -100)
    return item * item


@pytest.mark.parametrize("concurrency", [1, 3])
def test_outcomes_come_in_order_with_answer_or_error(concurrency):
    def ask(item):
        time.sleep(0.01 if item == 1 else 0)
        return _ask(item)

    outcomes = list(ask_all(iter([1, 2, -3, 4]), ask, concurrency=concurrency, in_order=True))
    assert [(outcome.item, outcome.answer) for outcome in outcomes] == [(1, 1), (2, 4), (-3, None), (4, 16)]
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == ["no answer to -3"]


def test_without_order_nobody_waits_for_a_slow_one():
    is_last = threading.Event()

    def ask(item):
        if item == 0:
            assert is_last.wait(10)
        if item == 9:
            is_last.set()
        return item

    outcomes = [outcome.item for outcome in ask_all(range(10), ask, concurrency=2)]
    assert sorted(outcomes) == list(range(10))
    assert outcomes.index(0) >= 6  # four are in the works at most when the last one is taken


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(("items", "num_outcomes"), [([1, -1, -2, 2, -3, -4, -5, 3], 7), ([1, -100, 2], 2)])
def test_it_stops_after_failures_in_a_row_or_a_fatal_one(concurrency, items, num_outcomes):
    outcomes = []
    asked = ask_all(items, _ask, concurrency=concurrency, max_failures=3, in_order=True)
    with pytest.raises(ChatError, match="no answer to") as raised:
        outcomes.extend(asked)
    assert [outcome.item for outcome in outcomes] == items[:num_outcomes]
    assert raised.value.fatal
    assert raised.value.__cause__ is outcomes[-1].error


@pytest.mark.parametrize("concurrency", [1, 4])
def test_items_are_taken_as_they_are_asked_and_another_error_ends_it(concurrency):
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    outcomes = ask_all(items(), _ask, concurrency=concurrency)
    next(outcomes)
    assert len(taken) <= 2 * concurrency
    outcomes.close()

    def fail(item):
        raise KeyError(item)

    with pytest.raises(KeyError):
        next(ask_all(items(), fail, concurrency=concurrency))
    with pytest.raises(ValueError, match="concurrency=0"):
        next(ask_all([], _ask, concurrency=0))


@pytest.mark.parametrize("max_failures", [0, -1])
def test_so_few_failures_that_it_could_never_begin_are_refused(max_failures):
    with pytest.raises(ValueError, match=rf"max_failures={max_failures}: use 1 or more"):
        next(ask_all([], _ask, concurrency=1, max_failures=max_failures))
