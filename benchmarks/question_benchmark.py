"""What a multiple-choice benchmark of audio understanding is: how its data are read and its replies scored."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from .question_items import QuestionItem

BENCHMARK_NAMES = ("mmau", "mmar", "mmsu")


@dataclass(frozen=True)
class Revision:
    """Which version of a benchmark's questions was read.

    Attributes:
        sha256: of the question file's bytes; of the questions' canonical JSON where they come in several files.
        name: what the version is known as; None if it is not a known one.
    """

    sha256: str
    name: str | None = None


@dataclass(frozen=True)
class LoadedQuestions:
    """The questions of a benchmark.

    Attributes:
        items: in the order of the data.
        revision: which version they are.
        problems: what is wrong with single items, in words that name the item and the field.
    """

    items: Sequence[QuestionItem]
    revision: Revision
    problems: Sequence[str] = field(default_factory=tuple)


class QuestionBenchmark(ABC):
    """One benchmark: its names, its files, its rule."""

    name: str
    prediction_key: str
    """The field in which the published scorer looks for a reply."""

    @abstractmethod
    def load(self, data: str) -> LoadedQuestions:
        """Reads the questions of a local file or folder, or of a Hub data set.

        Raises:
            ValueError: if there are no questions of this benchmark there.
            OSError: if a file is missing or the Hub cannot be reached.
        """


def benchmark_named(name: str) -> QuestionBenchmark:
    """The benchmark of a name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in BENCHMARK_NAMES:
        raise ValueError(f"benchmark={name!r}: use one of {', '.join(BENCHMARK_NAMES)}")
    benchmark: QuestionBenchmark = importlib.import_module(f"audiollm.benchmarks.{name}").BENCHMARK
    return benchmark
