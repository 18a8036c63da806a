"""Work done ahead: in order, within bounds, with every error, and nothing left behind."""

import threading
import time

import pytest

from audiollm.data.tokenizing.read_ahead import ReadAhead, Waits, made_ahead


def ahead(function, items, **options):
    settings = {"size_of": lambda _: 1.0, "max_size": 4, "max_results": 100, "num_threads": 3, "waits": Waits()}
    return iter(ReadAhead(function, items, **settings | options))


def late_when_odd(number):
    time.sleep(0.002 * (number % 2))
    return number


@pytest.mark.parametrize("num_threads", [1, 3])
def test_results_come_in_order_whoever_is_done_first(num_threads):
    assert list(ahead(late_when_odd, range(40), num_threads=num_threads)) == list(range(40))
    assert list(ahead(late_when_odd, [])) == []


@pytest.mark.parametrize("bound", [{"max_size": 4, "max_results": 100}, {"max_size": 100, "max_results": 4}])
def test_no_more_is_done_ahead_than_the_bounds_allow(bound):
    begun = []
    results = ahead(lambda number: begun.append(number) or number, range(50), **bound)
    taken = 0
    for taken, _ in enumerate(results, 1):
        time.sleep(0.001)
        assert len(begun) <= taken + 4 + 3  # what waits, and what is at hand in three threads
    assert taken == 50


def test_a_result_larger_than_the_bound_does_not_stop_the_work():
    assert list(ahead(lambda number: number, range(5), size_of=lambda _: 1000.0)) == list(range(5))


def test_an_error_is_raised_in_its_place_and_the_threads_end():
    def fail_at_seven(number):
        if number == 7:
            raise RuntimeError("seven")
        return number

    before = threading.active_count()
    results = ahead(fail_at_seven, range(1000))
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(RuntimeError, match="seven"):
        next(results)
    assert threading.active_count() == before


def test_whoever_stops_early_leaves_no_threads_behind():
    before = threading.active_count()
    results = ahead(lambda number: number, range(1000))
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_both_sides_say_how_long_they_waited():
    slow, quick = Waits(), Waits()
    list(ahead(lambda number: time.sleep(0.02), range(10), num_threads=1, waits=slow))
    assert slow.consumer >= 0.15
    assert slow.producers < 0.1
    for _ in ahead(lambda number: number, range(10), max_results=1, num_threads=1, waits=quick):
        time.sleep(0.02)
    assert quick.producers >= 0.1
    assert quick.consumer < 0.1


def test_an_iterator_is_run_ahead_and_its_error_comes_through():
    def blocks():
        yield from range(5)
        raise RuntimeError("after five")

    made = made_ahead(blocks(), max_results=2, waits=Waits())
    assert [next(made) for _ in range(5)] == list(range(5))
    with pytest.raises(RuntimeError, match="after five"):
        next(made)
    assert list(made_ahead(iter("abc"), max_results=1, waits=Waits())) == ["a", "b", "c"]
