"""Export of replies in the layout that published scorers take: the questions' own fields, and the reply."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audiollm.benchmarks.questions.grading.pairing import PairedQuestion, questions_of_data

from .base import MISSING, QuestionBenchmark
from .data import check_revision, load_questions, published_rows, write_rows
from .items import without_letters
from .predictions import open_predictions


def export_replies(
    benchmark: QuestionBenchmark,
    predictions: str,
    data: str,
    output: str | os.PathLike[str],
    *,
    prediction_key: str | None = None,
) -> tuple[int, int]:
    """Writes the questions that were asked with their published fields, and each reply in the scorer's field.

    Options are in the order in which they were asked. A question without a reply has no such field.

    Args:
        benchmark: what was asked.
        predictions: a log of ours, or any file of predictions.
        data: the questions.
        output: .json for a list, .jsonl for one object a line.
        prediction_key: field of the replies in the predictions, if these are no log; None: the published scorer's.

    Returns:
        How many questions there are in the file, and how many of them have a reply.

    Raises:
        ValueError: if predictions and data do not belong together, or the output has another ending.
        OSError: if a file cannot be read.
    """
    path = Path(output)
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path}: end the name in .json or .jsonl")
    loaded = load_questions(benchmark, data, with_audio=False)
    check_revision(benchmark, loaded)
    source = open_predictions(predictions)
    key = source.reply_key(prediction_key, benchmark.prediction_key)
    asked = questions_of_data(benchmark, source, loaded, key)
    rows = published_rows(benchmark, data)
    records = [_exported(benchmark, row, question) for row, question in zip(rows, asked, strict=False)]
    write_rows(records, path)
    return len(records), sum(benchmark.prediction_key in record for record in records)


def _exported(benchmark: QuestionBenchmark, row: dict[str, Any], question: PairedQuestion) -> dict[str, Any]:
    record = {name: value for name, value in row.items() if name != benchmark.prediction_key}
    asked, _ = benchmark.question_of(record)
    if tuple(without_letters(asked.choices)) != question.item.choices:
        record |= benchmark.choice_fields(question.item.choices)
    return record if question.reply is MISSING else record | {benchmark.prediction_key: question.reply}
