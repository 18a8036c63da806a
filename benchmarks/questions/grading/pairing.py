"""Bringing the replies of a file together with the questions they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from audiollm.benchmarks.questions.base import MISSING, FieldProblem, LoadedQuestions, QuestionBenchmark
from audiollm.benchmarks.questions.items import QuestionItem, without_letters
from audiollm.benchmarks.questions.predictions import PredictionFile
from audiollm.data.files.json_lines import Record

# Fields in which replies are found elsewhere; named when the right one is nowhere in a file.
_LIKELY_KEYS = ("model_output", "model_prediction", "answer_prediction", "response", "prediction", "output", "pred")


class PairedQuestion(NamedTuple):
    """A question and what stands in the place of its reply.

    Attributes:
        position: in the file of predictions, or in the data where these are given.
        id: as the file has it; None if it has none.
        item: the question, with its options as they were asked.
        reply: text; anything else JSON can hold; ``MISSING``.
        problems: what is wrong with the question's fields.
    """

    position: int
    id: Any
    item: QuestionItem
    reply: object
    problems: Sequence[FieldProblem]


def questions_of_file(benchmark: QuestionBenchmark, predictions: PredictionFile, key: str) -> Iterator[PairedQuestion]:
    """The questions of a file that holds them along with the replies.

    Raises:
        ValueError: if no record has a reply in ``key`` but some have one in a field of another name.
    """
    seen_keys: set[str] = set()
    num_replies = 0
    for index, record in enumerate(predictions.records):
        item, problems = benchmark.question_of(record)
        num_replies += key in record
        if not num_replies:
            seen_keys.update(other for other in _LIKELY_KEYS if other in record)
        yield PairedQuestion(index, record.get("id"), item, record.get(key, MISSING), problems)
    if not num_replies and seen_keys:
        raise ValueError(
            f"{predictions.path}: no item has a reply in {key!r}, where {benchmark.title}'s scorer looks; "
            f"if it is in {' or '.join(map(repr, sorted(seen_keys)))}, say so with --prediction-key"
        )


def questions_of_data(
    benchmark: QuestionBenchmark, predictions: PredictionFile, loaded: LoadedQuestions, key: str
) -> Iterator[PairedQuestion]:
    """The questions of the data, each with its reply if there is one.

    Raises:
        ValueError: if the predictions are of other data, of another benchmark, of questions that do not exist, or hold
            two replies to one.
    """
    header = predictions.header
    items: Sequence[QuestionItem] = loaded.items
    if header is not None:
        _check_header(benchmark, predictions, header, loaded)
        limit = header.get("limit")
        items = items[:limit] if isinstance(limit, int) else items
    known = {item.id: item for item in items}
    replies: dict[str, Record] = {}
    for index, record in enumerate(predictions.records):
        name = _name_in_data(benchmark, record, known, loaded.aliases)
        if name is None:
            shown = record.get("id", f"number {index}")
            raise ValueError(f"{predictions.path}: item {shown} is not in the data; give the data that were asked")
        if name in replies:
            raise ValueError(f"{predictions.path}: item {name} occurs more than once; keep one reply to each question")
        if header is None:
            _check_same(predictions, benchmark, record, known[name])
        replies[name] = record
    reply_key = key if header is None else "prediction"
    for index, item in enumerate(items):
        record = replies.get(item.id, {})
        asked = record.get("choices") if header is not None else None
        if isinstance(asked, list) and tuple(asked) != item.choices:
            item = _as_asked(predictions, item, asked)
        yield PairedQuestion(index, item.id, item, record.get(reply_key, MISSING), ())


def _check_header(
    benchmark: QuestionBenchmark, predictions: PredictionFile, header: Mapping[str, Any], loaded: LoadedQuestions
) -> None:
    if header.get("benchmark") != benchmark.name:
        raise ValueError(f"{predictions.path} holds replies to {header.get('benchmark')}, not {benchmark.name}")
    if header.get("data_sha256") != loaded.revision.sha256:
        raise ValueError(
            f"{predictions.path} answers other data (sha256 {header.get('data_sha256')}) than those given "
            f"({loaded.revision.sha256}); give the data that were asked"
        )


def _name_in_data(
    benchmark: QuestionBenchmark, record: Record, known: Mapping[str, QuestionItem], aliases: Mapping[str, str]
) -> str | None:
    for name in (record.get("id"), record.get(benchmark.audio_key)):
        if name is not None and str(name) in known:
            return str(name)
        if name is not None and aliases.get(str(name)) in known:
            return aliases[str(name)]
    return None


def _check_same(predictions: PredictionFile, benchmark: QuestionBenchmark, record: Record, item: QuestionItem) -> None:
    """Refuses predictions that were made for another version of the questions."""
    own, problems = benchmark.question_of(record)
    wrong = " ".join(problem.field for problem in problems if problem.fatal)
    if "choice" not in wrong and any(own.choices):
        plain = without_letters(own.choices)
        if tuple(plain) != item.choices:
            _refuse_version(predictions, item, "choices", plain, list(item.choices))
        if "answer" not in wrong and own.answer:
            answer = plain[own.choices.index(own.answer)] if own.answer in own.choices else own.answer
            if answer != item.answer:
                _refuse_version(predictions, item, "answer", answer, item.answer)


def _refuse_version(
    predictions: PredictionFile, item: QuestionItem, field: str, there: object, in_data: object
) -> NoReturn:
    raise ValueError(
        f"{predictions.path}: {field} of item {item.id}: {there!r} there, {in_data!r} in the data; "
        "the two are of different versions"
    )


def _as_asked(predictions: PredictionFile, item: QuestionItem, asked: Sequence[str | None]) -> QuestionItem:
    if sorted(map(repr, asked)) != sorted(map(repr, item.choices)):
        raise ValueError(
            f"{predictions.path}: item {item.id} was asked with the options {asked}, not those of the data"
        )
    return replace(item, choices=tuple(asked))
