"""Work that threads do ahead of whoever takes its results, within bounds; what either side waits is measured."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclass
class Waits:
    """Seconds that one side waited for the other.

    Attributes:
        consumer: that whoever takes the results waited for one.
        producers: that the threads waited until results were taken, on average over the threads.
    """

    consumer: float = 0.0
    producers: float = 0.0


class ReadAhead(Generic[_T, _U]):
    """Maps a function over items by threads; results come in the order of the items.

    The next item is begun only while the results that nobody has taken yet are within both bounds, so memory is bounded
    by them and by what is at hand in the threads.

    Args:
        function: called by the threads. What it raises is raised where its result is taken.
        items: its arguments; iterating over them must not fail.
        size_of: the size of a result, in the unit of ``max_size``.
        max_size: of all results that wait to be taken.
        max_results: that wait to be taken.
        num_threads: of them.
        waits: gets what both sides waited.
    """

    def __init__(
        self,
        function: Callable[[_T], _U],
        items: Iterable[_T],
        *,
        size_of: Callable[[_U], float],
        max_size: float,
        max_results: int,
        num_threads: int,
        waits: Waits,
    ) -> None:
        self._function, self._items, self._size_of = function, enumerate(items), size_of
        self._max_size, self._max_results = max_size, max_results
        self._waits, self._num_threads = waits, num_threads
        self._changed = threading.Condition()
        self._results: dict[int, tuple[_U | None, BaseException | None, float]] = {}
        self._size = 0.0  # of the results that wait
        self._num_begun = 0
        self._is_exhausted = self._is_stopped = False

    def __iter__(self) -> Generator[_U, None, None]:
        threads = [threading.Thread(target=self._work, name="decode", daemon=True) for _ in range(self._num_threads)]
        for thread in threads:
            thread.start()
        try:
            for number in itertools.count():
                found = self._take(number)
                if found is None:
                    return
                result, error, _ = found
                if error is not None:
                    raise error
                yield result  # type: ignore[misc]  # there is one where there is no error
        finally:
            with self._changed:
                self._is_stopped = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def _take(self, number: int) -> tuple[_U | None, BaseException | None, float] | None:
        """The result of an item, once it is there; None behind the last item."""
        started = time.perf_counter()
        with self._changed:
            while number not in self._results:
                if self._is_exhausted and number >= self._num_begun:
                    return None
                self._changed.wait()
            found = self._results.pop(number)
            self._size -= found[2]
            self._waits.consumer += time.perf_counter() - started
            self._changed.notify_all()
        return found

    def _work(self) -> None:
        while True:
            begun = self._begin()
            if begun is None:
                return
            number, item = begun
            result, error, size = None, None, 0.0
            try:
                result = self._function(item)
                size = self._size_of(result)
            except BaseException as raised:  # handed to whoever takes the result
                error = raised
            with self._changed:
                self._results[number] = result, error, size
                self._size += size
                self._changed.notify_all()

    def _begin(self) -> tuple[int, _T] | None:
        started = time.perf_counter()
        with self._changed:
            # A result that is waited for has been begun, or nothing is held that could stop it from being begun.
            while not self._is_stopped and (self._size >= self._max_size or len(self._results) >= self._max_results):
                self._changed.wait()
            self._waits.producers += (time.perf_counter() - started) / self._num_threads
            begun = None if self._is_stopped or self._is_exhausted else next(self._items, None)
            if begun is None:
                self._is_exhausted = True
                self._changed.notify_all()
            else:
                self._num_begun += 1
            return begun


_END = object()


def made_ahead(items: Iterable[_T], *, max_results: int, waits: Waits) -> Generator[_T, None, None]:
    """Yields what an iterator gives, which a thread of its own runs a few results ahead.

    Args:
        items: run by the thread. What it raises is raised here, in its place.
        max_results: that wait to be taken.
        waits: gets what both sides waited.
    """
    iterator = iter(items)
    results: ReadAhead[int, Any] = ReadAhead(
        lambda _: next(iterator, _END),
        itertools.count(),
        size_of=lambda _: 0.0,
        max_size=1.0,
        max_results=max_results,
        num_threads=1,
        waits=waits,
    )
    with contextlib.closing(iter(results)) as made:
        for value in made:
            if value is _END:
                return
            yield value
