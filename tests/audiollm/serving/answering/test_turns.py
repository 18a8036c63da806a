"""Threads that share the cores: so many at once, and first the one whose sound has got least."""

from __future__ import annotations

import threading
import time

import pytest

from audiollm.serving.answering.turns import Turns


def wait_for(turns: Turns, number: int) -> None:
    while len(turns._waiting) < number:
        time.sleep(0.001)


def test_who_has_got_least_goes_first() -> None:
    turns = Turns(1)
    turns.take(0)
    order: list[float] = []

    def work(given: float) -> None:
        turns.take(given)
        order.append(given)
        turns.leave()

    threads = [threading.Thread(target=work, args=(given,)) for given in (3.0, 0.0, 2.0, 1.0)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_for(turns, number + 1)
    turns.leave()
    for thread in threads:
        thread.join(10)
    assert order == [0.0, 1.0, 2.0, 3.0]


def test_no_more_than_so_many_work_at_once() -> None:
    turns, lock = Turns(2), threading.Lock()
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            turns.take(0)
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.0002)
            with lock:
                inside -= 1
            turns.leave()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most <= 2
    assert (inside, len(turns._waiting), turns._num_free) == (0, 0, 2)
    with pytest.raises(ValueError, match="at_once=0"):
        Turns(0)
