"""QuestionBenchmark: how a multiple-choice benchmark's files are read, its replies graded and its tables made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, NamedTuple

from .items import CustomQuestion, QuestionItem

CUSTOM_SET = "a set of one's own"
CUSTOM_SET_KEY = "own_set"  # in files: says of a question, or of a result's data, that it is none of the benchmark's

Mode = Literal["official", "strict", "extract"]
MODES: tuple[Mode, ...] = ("official", "strict", "extract")


class _Missing:
    """The type of ``MISSING``."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""In place of a reply that is not there at all, which is not the same as null."""


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with a field of a question.

    Attributes:
        field: its name in the file.
        text: what is wrong, to be read after the name: "is null, not text".
        fatal: whether nothing can be graded without it.
    """

    field: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.field} {self.text}"


QuestionReading = tuple[QuestionItem, list[FieldProblem]]
"""A question as far as it can be read, and what is wrong with it."""


class Verdict(NamedTuple):
    """How a reply was graded.

    Attributes:
        counted: whether the question is in the denominator.
        correct: None if it is not counted.
        missing: there is no reply: none at all, null, or blank.
        unreadable: there is one, but it names no option, or several.
        details: what else is to be written down about it.
    """

    counted: bool
    correct: bool | None
    missing: bool = False
    unreadable: bool = False
    details: Mapping[str, Any] | None = None


Groups = tuple[tuple[str, str], ...]
"""The groups that a question belongs to, such as ``(("task", "music"), ("difficulty", "easy"))``."""


@dataclass
class Tally:
    """Counted and right questions by their groups, in order of appearance."""

    counts: dict[Groups, list[int]] = field(default_factory=dict)

    def add(self, groups: Mapping[str, str], correct: bool) -> None:
        count = self.counts.setdefault(tuple(groups.items()), [0, 0])
        count[0] += 1
        count[1] += correct

    def by(self, *headings: str, where: Mapping[str, str] | None = None) -> dict[tuple[str, ...], tuple[int, int]]:
        """Numbers of counted and right questions for each combination of the headings' values.

        Args:
            headings: a question without one of them is left out.
            where: only questions with these values.
        """
        sums: dict[tuple[str, ...], tuple[int, int]] = {}
        for groups, (num_counted, num_right) in self.counts.items():
            values = dict(groups)
            if any(heading not in values for heading in headings):
                continue
            if where is not None and any(values.get(heading) != value for heading, value in where.items()):
                continue
            key = tuple(values[heading] for heading in headings)
            counted, right = sums.get(key, (0, 0))
            sums[key] = (counted + num_counted, right + num_right)
        return sums

    def total(self, where: Mapping[str, str] | None = None) -> tuple[int, int]:
        return self.by(where=where).get((), (0, 0))


@dataclass(frozen=True)
class Revision:
    """Which version of a benchmark's questions was read.

    Attributes:
        sha256: of the question file's bytes; of the questions' canonical JSON where they are in parquet files.
        name: what the version is known as; None if it is not a known one.
        is_custom_set: whether they are not the benchmark's, but questions of one's own in its layout (`custom_sets`).
    """

    sha256: str
    name: str | None = None
    is_custom_set: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As results tell it."""
        custom = {CUSTOM_SET_KEY: True} if self.is_custom_set else {}
        return {"sha256": self.sha256, "known_as": self.name} | custom


@dataclass(frozen=True)
class LoadedQuestions:
    """The questions of a benchmark.

    Attributes:
        items: in the order of the data.
        revision: which version they are.
        problems: what is wrong with single items, in words that name the item and the field.
        aliases: other names by which predictions call items, and the items' ids.
    """

    items: Sequence[QuestionItem]
    revision: Revision
    problems: Sequence[str] = field(default_factory=tuple)
    aliases: Mapping[str, str] = field(default_factory=dict)


class QuestionBenchmark(ABC):
    """One benchmark: its names, its files, its rule."""

    name: str
    title: str
    prediction_key: str
    """The field in which the published scorer looks for a reply."""
    audio_key: str
    """The field with the place of a recording, where it is a file of its own."""
    audio_folder: str
    """Where the recordings lie, beside the file of questions."""
    file_names: Sequence[str]
    """What the file of questions is called, now and in older copies."""
    known_revisions: ClassVar[Mapping[str, str]]
    """Beginnings of the hashes of known versions, and what these are."""
    published_census: ClassVar[Mapping[str, Mapping[str, int]]] = {}
    """How many questions there are of each group, where that is published; by heading."""
    parquet_first: bool = False
    """Whether parquet files are to be read where there is a file of questions as well."""
    official_stops: bool
    """Whether the published scorer stops at a reply or a field of another type."""

    @abstractmethod
    def question_of(self, record: Mapping[str, Any], audio: str | bytes = "") -> QuestionReading:
        """Reads a question of the published layout, as far as it can be read.

        Args:
            record: the published fields.
            audio: the recording, where it is needed.
        """

    @abstractmethod
    def record_of(self, custom: CustomQuestion) -> dict[str, Any] | None:
        """A question of one's own in the published layout; None if the benchmark has no questions of that kind."""

    @abstractmethod
    def choice_fields(self, choices: Sequence[str | None]) -> dict[str, Any]:
        """The published fields of options, in this order."""

    @abstractmethod
    def grade(self, item: QuestionItem, reply: object, mode: Mode) -> Verdict:
        """Grades a reply.

        Args:
            item: the question; its options in the order in which they were asked.
            reply: text, or what stands in its place (``MISSING`` for nothing at all).
            mode: the rule.
        """

    @abstractmethod
    def tables(self, counted: Tally, dropped: Tally, mode: Mode) -> dict[str, Any]:
        """What the benchmark prints.

        Args:
            counted: questions in the denominator.
            dropped: the other questions.
            mode: the rule they were graded by.

        Returns:
            ``table`` and ``printed``, and whatever else its papers show.
        """


def type_name(value: object) -> str:
    """What JSON calls the type of a value."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def first_problems(problems: Iterable[str], limit: int = 5) -> str:
    """The first of some sentences, and how many more there are."""
    all_of_them = list(problems)
    more = len(all_of_them) - limit
    return "; ".join(all_of_them[:limit]) + (f"; and {more} more" if more > 0 else "")
