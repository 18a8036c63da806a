from __future__ import annotations

import threading

import pytest

from audiollm.training.loop.prefetching import Prefetched


def test_batches_come_in_order_each_read_once_in_another_thread():
    threads: list[int] = []

    def read(step: int) -> int:
        threads.append(threading.get_ident())
        return 10 * step

    assert list(Prefetched(read, [3, 4, 7])) == [(3, 30), (4, 40), (7, 70)]
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert list(Prefetched(read, [])) == []


def test_the_next_batch_is_read_while_the_caller_works():
    started = {step: threading.Event() for step in (1, 2, 3)}

    def read(step: int) -> int:
        started[step].set()
        return step

    for step, _ in Prefetched(read, started):
        assert step == 3 or started[step + 1].wait(timeout=10)


def test_settling_waits_for_what_is_being_read():
    may_end, ended = threading.Event(), threading.Event()

    def read(step: int) -> int:
        if step == 2:
            may_end.wait(timeout=10)
            ended.set()
        return step

    batches = Prefetched(read, [1, 2])
    batches.settle()  # before the first there is nothing to wait for
    for step, _ in batches:
        if step == 1:
            assert not ended.is_set()
            may_end.set()
            batches.settle()
            assert ended.is_set()


def test_what_reading_raises_comes_where_its_batch_would():
    def read(step: int) -> int:
        if step == 2:
            raise ValueError("a bad clip")
        return step

    batches = iter(Prefetched(read, [1, 2, 3]))
    assert next(batches) == (1, 1)
    with pytest.raises(ValueError, match="a bad clip"):
        next(batches)
