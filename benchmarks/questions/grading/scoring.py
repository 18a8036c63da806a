"""Scores replies to multiple-choice questions: by the published rule with its omissions, strictly, or extracted.

Nothing is guessed in place of an answer. Every result says how many questions were asked, how many have no reply, and
how many replies name no option.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from audiollm.benchmarks.questions.base import (
    MISSING,
    MODES,
    LoadedQuestions,
    Mode,
    QuestionBenchmark,
    Tally,
    Verdict,
    first_problems,
    type_name,
)
from audiollm.benchmarks.questions.data import check_revision, load_questions
from audiollm.benchmarks.questions.items import QuestionItem
from audiollm.benchmarks.questions.predictions import RECORDING_CUT, REPLY_CUT, PredictionFile, open_predictions

from .bootstrap import share_interval
from .pairing import PairedQuestion, questions_of_data, questions_of_file

logger = logging.getLogger(__name__)

MAX_PROBLEMS_SHOWN = 100
_TOTALS = ("correct_extract", "correct_extract_after_think", "correct_extract_letter")


def score_file(
    benchmark: QuestionBenchmark,
    predictions: str,
    *,
    data: str | None = None,
    mode: Mode = "official",
    prediction_key: str | None = None,
    require_known_data: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores a file of predictions.

    Args:
        benchmark: what was asked.
        predictions: file of the published layout, or a log of ours.
        data: the questions; None if the file holds them.
        mode: the rule.
        prediction_key: field of the replies; None: the published scorer's.
        require_known_data: whether the data must be a known version.
        seed: of the bootstrap interval.

    Returns:
        The result, ready for JSON; ``items`` comes last.

    Raises:
        ValueError: if the file, or in official mode an item at which the published scorer stops, cannot be scored.
        OSError: if a file cannot be read.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: use one of {', '.join(MODES)}")
    source = open_predictions(predictions)
    loaded = None if data is None else load_questions(benchmark, data, with_audio=False)
    if loaded is not None:
        check_revision(benchmark, loaded, require_known_data=require_known_data)
    elif require_known_data:
        raise ValueError("--require-known-data needs --data: a file of predictions does not tell its version")
    if source.header is not None and loaded is None:
        raise ValueError(f"{predictions} is a log, which does not hold the questions: give them with --data")
    return score_loaded(benchmark, loaded, source, mode, prediction_key=prediction_key, seed=seed)


def score_loaded(
    benchmark: QuestionBenchmark,
    loaded: LoadedQuestions | None,
    predictions: PredictionFile,
    mode: Mode,
    *,
    prediction_key: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores replies to questions that have been read; arguments, result and errors as for `score_file`."""
    key = predictions.reply_key(prediction_key, benchmark.prediction_key)
    if loaded is None:
        questions = questions_of_file(benchmark, predictions, key)
    else:
        questions = questions_of_data(benchmark, predictions, loaded, key)
    score = score_questions(benchmark, questions, mode, source=str(predictions.path), key=key)
    return _result(benchmark, mode, predictions, loaded, score, seed)


@dataclass
class QuestionScore:
    """What was counted.

    Attributes:
        items: one entry a question: ``index``, ``id``, ``counted``, ``correct`` and what the rule says beside.
        counted: questions in the denominator, by their groups.
        dropped: the other questions, by their groups.
        num_missing: questions without a reply.
        num_unreadable: replies that name no option, or several.
        num_first: questions whose first option is the answer.
        random: expected number of right answers of one who picks any option.
        num_withheld: questions whose answer is an empty text.
        num_repeated: ids that occurred before.
        totals: right answers by the single steps of the extract mode.
        read_from: how replies were read in extract mode, and how many so.
        problems: what is wrong with single items.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    counted: Tally = field(default_factory=Tally)
    dropped: Tally = field(default_factory=Tally)
    num_missing: int = 0
    num_unreadable: int = 0
    num_first: int = 0
    random: float = 0.0
    num_withheld: int = 0
    num_repeated: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    read_from: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, question: PairedQuestion, verdict: Verdict) -> None:
        entry = {
            "index": question.position,
            "id": question.id,
            "counted": verdict.counted,
            "correct": verdict.correct,
        }
        if verdict.missing:
            entry["missing"] = True
        if verdict.unreadable:
            entry["unreadable"] = True
        self.items.append(entry)
        if verdict.details is not None:
            entry.update(verdict.details)
            self._add_totals(verdict.details)
            if "read_from" in verdict.details and not verdict.missing:
                self.read_from[verdict.details["read_from"]] += 1
        self.num_missing += verdict.missing
        self.num_unreadable += verdict.unreadable
        tally = self.counted if verdict.counted else self.dropped
        tally.add(question.item.groups, bool(verdict.correct))
        self._add_baselines(question.item)

    def _add_totals(self, details: Mapping[str, Any]) -> None:
        if _TOTALS[0] not in details:
            return
        for name in _TOTALS:
            self.totals[name] = self.totals.get(name, 0) + bool(details[name])
        self.totals["letter_found"] = self.totals.get("letter_found", 0) + (details["letter"] is not None)

    def _add_baselines(self, item: QuestionItem) -> None:
        present = [choice for choice in item.choices if choice is not None]
        self.num_withheld += not item.answer
        if present:
            self.num_first += present[0] == item.answer
            self.random += (item.answer in present) / len(present)


def score_questions(
    benchmark: QuestionBenchmark, questions: Iterable[PairedQuestion], mode: Mode, *, source: str, key: str
) -> QuestionScore:
    """Grades and counts questions.

    Args:
        benchmark: whose rule is used.
        questions: each is looked at once.
        mode: the rule.
        source: what the questions are from, for messages.
        key: field of the replies, for messages.

    Raises:
        ValueError: if an item cannot be graded, naming it and the field.
    """
    score = QuestionScore()
    stops: list[str] = []
    seen: set[str] = set()
    for question in questions:
        name = f"item {question.position}" if question.id is None else f"item {question.id}"
        fatal, noted = _problems(benchmark, question, mode, key)
        if question.id is not None and name in seen:
            score.num_repeated += 1
            (noted if mode == "official" else fatal).append("id occurs more than once")
        seen.add(name)
        if fatal or noted:
            stops += [f"{name}: {problem}" for problem in fatal]
            score.problems += [f"{name}: {problem}" for problem in noted]
        if not fatal:
            score.add(question, benchmark.grade(question.item, question.reply, mode))
    if stops:
        hint = ""
        if mode == "official" and benchmark.official_stops:
            hint = " (the published scorer stops there; the strict mode counts replies that are not text as wrong)"
        raise ValueError(f"{source}: {first_problems(stops)}{hint}")
    _check_countable(benchmark, score, mode, source, key)
    return score


def _problems(
    benchmark: QuestionBenchmark, question: PairedQuestion, mode: Mode, key: str
) -> tuple[list[str], list[str]]:
    """What prevents a question from being graded, and what is only to be noted."""
    reply = question.reply
    if not question.problems and (isinstance(reply, str) or reply is MISSING):
        return [], []
    problems = [(str(problem), problem.fatal) for problem in question.problems]
    if reply is not MISSING and not isinstance(reply, str):
        problems.append((f"{key} is {type_name(reply)}, not text", False))
    if mode == "official" and not benchmark.official_stops:
        is_fatal = [False] * len(problems)
    elif mode == "official":
        # The scorer looks at nothing else of a question without a reply.
        is_fatal = [reply is not MISSING] * len(problems)
    else:
        is_fatal = [fatal for _, fatal in problems]
    fatal_ones = [text for (text, _), fatal in zip(problems, is_fatal, strict=True) if fatal]
    noted = [text for (text, _), fatal in zip(problems, is_fatal, strict=True) if not fatal]
    return fatal_ones, noted


def _check_countable(benchmark: QuestionBenchmark, score: QuestionScore, mode: Mode, source: str, key: str) -> None:
    num_items = len(score.items)
    if num_items and score.num_withheld == num_items:
        raise ValueError(f"{source}: the answers are withheld (all empty), so nothing can be scored here")
    if mode == "official" and not benchmark.official_stops:
        return  # its scorer prints 0.0000 over nothing
    if not num_items:
        raise ValueError(f"{source} holds no items")
    if not score.counted.total()[0]:
        raise ValueError(
            f"{source}: none of the {num_items} items has a reply in {key!r}, so there is nothing to count"
        )


def _result(
    benchmark: QuestionBenchmark,
    mode: Mode,
    source: PredictionFile,
    loaded: LoadedQuestions | None,
    score: QuestionScore,
    seed: int,
) -> dict[str, Any]:
    num_items = len(score.items)
    num_counted, num_right = score.counted.total()
    interval = share_interval(num_right, num_counted, seed=seed)
    problems = [*source.problems, *score.problems]
    if problems:
        logger.warning("%s: %s", source.path, first_problems(problems, limit=3))
    header = source.header or {}
    of_log = source.header is not None
    return {
        "benchmark": benchmark.name,
        "mode": mode,
        "predictions": {"file": source.path.name, "sha256": source.sha256},
        "data": _data_facts(loaded),
        **{name: header.get(name) for name in ("prompt", "shuffle_options", "limit", "model", "decoding", "versions")},
        "n_in_data": None if loaded is None else len(loaded.items),
        "n_items": num_items,
        "n_counted": num_counted,
        "n_correct": num_right,
        "n_missing": score.num_missing,
        "n_unreadable": score.num_unreadable,
        "n_read_from": dict(score.read_from.most_common()) or None,
        "n_failed": len(source.failed) if of_log else None,
        "n_replies_cut": len(source.cut[REPLY_CUT]) if of_log else None,
        "n_recordings_cut": len(source.cut[RECORDING_CUT]) if of_log else None,
        "n_repeated_ids": score.num_repeated,
        "accuracy": num_right / num_counted if num_counted else 0.0,
        "interval": interval.as_json() if interval is not None else None,
        "baselines": {
            "first_option": score.num_first / num_items if num_items else None,
            "random": score.random / num_items if num_items else None,
        },
        **benchmark.tables(score.counted, score.dropped, mode),
        "totals": score.totals or None,
        "n_problems": len(problems),
        "problems": problems[:MAX_PROBLEMS_SHOWN],
        "items": score.items,
    }


def _data_facts(loaded: LoadedQuestions | None) -> dict[str, Any] | None:
    if loaded is None:
        return None
    return loaded.revision.to_dict() | {"n_problems": len(loaded.problems)}
