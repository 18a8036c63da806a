"""The multiple-choice benchmarks by name."""

from __future__ import annotations

from .base import QuestionBenchmark
from .sets.mmar import Mmar
from .sets.mmau import Mmau
from .sets.mmsu import Mmsu

BENCHMARKS: dict[str, QuestionBenchmark] = {benchmark.name: benchmark for benchmark in (Mmau(), Mmar(), Mmsu())}


def benchmark_named(name: str) -> QuestionBenchmark:
    """The benchmark of a name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark={name!r}: use one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
