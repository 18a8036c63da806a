"""A judge's opinion on replies to multiple-choice questions: a figure of its own, never part of the accuracy.

The judge is a chat model that reads question, options, right option and reply, and says yes or no, several times; the
majority counts. What it does not answer clearly is "not evaluated": counted, left out of the figure, and asked again by
the next run. A question without a reply is wrong without asking.
"""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from audiollm.benchmarks.harness.identity import file_identity
from audiollm.benchmarks.judge.asking import (
    JudgeSettings,
    NoVerdictError,
    ask_judge,
    judge_items,
    judge_prompt,
    majority,
    read_verdict,
    told_cuts,
)
from audiollm.benchmarks.judge.log import CUT, VerdictLog
from audiollm.benchmarks.questions.base import QuestionBenchmark
from audiollm.benchmarks.questions.data import load_questions
from audiollm.benchmarks.questions.predictions import open_predictions
from audiollm.benchmarks.questions.report import write_result
from audiollm.data.chat.base import ChatModel
from audiollm.data.files.json_lines import Record
from audiollm.data.prompts import Prompt

from .answer_extraction import after_thinking
from .bootstrap import share_interval
from .pairing import PairedQuestion, questions_of_data, questions_of_file
from .scoring import MAX_PROBLEMS_SHOWN

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgedFile:
    """Predictions that are to be judged.

    Attributes:
        questions: with their replies, by a key that is the question's id where it has one of its own.
        facts: of the predictions, for the result.
    """

    questions: Mapping[str, PairedQuestion]
    facts: Mapping[str, Any]


def judge_predictions(
    benchmark: QuestionBenchmark,
    predictions: str,
    judge: ChatModel,
    output: str,
    *,
    data: str | None = None,
    prediction_key: str | None = None,
    settings: JudgeSettings | None = None,
    max_failures: int = 10,
    progress: bool = False,
) -> dict[str, Any]:
    """Has replies judged; run again, it goes on and asks again what was not evaluated.

    Args:
        benchmark: what was asked.
        predictions: file of the published layout, or a log of ours.
        judge: a chat model.
        output: file for the result; the verdicts are kept beside it, in ``<output>.verdicts.jsonl``.
        data: the questions; None if the predictions hold them.
        prediction_key: field of the replies, if it is not the published one.
        settings: how the judge is asked.
        max_failures: stop when so many questions in a row get no verdict.
        progress: show a progress bar.

    Returns:
        The result: ``accuracy_of_evaluated`` (None if nothing was evaluated), counts, the judge, ``items``.

    Raises:
        ChatError: if the judge cannot answer at all; what it said so far is kept.
        ValueError: if predictions and data do not fit, the verdicts there are of another judging, or ``max_failures``
            is below 1.
        OSError: if a file cannot be read.
    """
    if max_failures < 1:
        raise ValueError(f"max_failures={max_failures}: use 1 or more")
    settings, prompt = settings or JudgeSettings(), judge_prompt("question")
    judged = read_judged(benchmark, predictions, data, prediction_key)
    identity = {"model": judge.name, **_settings_facts(settings, prompt)}
    path = verdicts_path(output)
    header = {"benchmark": benchmark.name, "predictions": judged.facts["predictions"]["sha256"], "judge": identity}
    asked = {key: question for key, question in judged.questions.items() if is_reply(question.reply)}
    template = Template(prompt.text)

    def verdict(key: str, num_attempts: int) -> Record:
        return _vote(template.substitute(_places(asked[key])).strip(), judge, settings, num_attempts)

    with VerdictLog(path, header) as log:
        judge_items(
            list(asked),
            verdict,
            log,
            concurrency=settings.concurrency,
            max_failures=max_failures,
            progress=progress,
        )
        result = _result(judged, log, identity)
    write_result(result, output)
    if result["n_not_evaluated"]:
        logger.warning("%d replies were not evaluated; run again to ask the judge again", result["n_not_evaluated"])
    if result["n_judge_replies_cut"]:
        logger.warning("%s; the items say about which replies", told_cuts(result["n_judge_replies_cut"]))
    return result


def verdicts_path(output: str) -> Path:
    """Where the verdicts of a result are kept."""
    path = Path(output)
    return path.with_name(path.name.removesuffix(".json") + ".verdicts.jsonl")


def read_judged(
    benchmark: QuestionBenchmark, predictions: str, data: str | None, prediction_key: str | None
) -> JudgedFile:
    """Reads predictions and the questions that they answer; arguments and errors as for `judge_predictions`."""
    source = open_predictions(predictions)
    loaded = None if data is None else load_questions(benchmark, data, with_audio=False)
    if loaded is None and source.header is not None:
        raise ValueError(f"{predictions} is a log, which does not hold the questions: give them with --data")
    key = source.reply_key(prediction_key, benchmark.prediction_key)
    paired = (
        questions_of_file(benchmark, source, key)
        if loaded is None
        else questions_of_data(benchmark, source, loaded, key)
    )
    questions: dict[str, PairedQuestion] = {}
    for question in paired:
        name = f"item {question.position}" if question.id is None else str(question.id)
        questions[f"{name}, item {question.position}" if name in questions else name] = question
    header = source.header or {}
    revision = None if loaded is None else loaded.revision
    facts = {
        "benchmark": benchmark.name,
        "predictions": file_identity(predictions),
        "data": revision and revision.to_dict(),
        **{name: header.get(name) for name in ("prompt", "shuffle_options", "limit", "model", "decoding", "versions")},
    }
    return JudgedFile(questions, facts)


def is_reply(reply: object) -> bool:
    """Whether there is something to judge."""
    return isinstance(reply, str) and bool(reply.strip())


def _places(question: PairedQuestion) -> dict[str, str]:
    item = question.item
    options = [
        f"{letter}. {choice}"
        for letter, choice in zip(string.ascii_uppercase, item.choices, strict=False)
        if choice is not None
    ]
    reply = after_thinking(str(question.reply)).strip()
    return {"question": item.question, "options": "\n".join(options), "answer": item.answer, "reply": reply}


def _vote(text: str, judge: ChatModel, settings: JudgeSettings, num_attempts: int) -> Record:
    """Asks as often as there are votes, each with a seed of its own."""
    votes = [
        ask_judge(judge, text, settings, number, read_verdict, num_attempts=num_attempts)
        for number in range(settings.votes)
    ]
    answers, num_cut = [vote.answer for vote in votes], sum(vote.num_cut for vote in votes)
    decided = majority(answers)
    if decided is None:
        raise NoVerdictError(f"no majority of {settings.votes} votes: {json.dumps(answers)}", num_cut)
    return {"correct": bool(decided), "votes": answers, **({CUT: num_cut} if num_cut else {})}


def _settings_facts(settings: JudgeSettings, prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt": {"id": prompt.id, "hash": prompt.hash},
        "votes": settings.votes,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }


def _result(judged: JudgedFile, log: VerdictLog, judge: Mapping[str, Any]) -> dict[str, Any]:
    items = [_item(key, question, log) for key, question in judged.questions.items()]
    evaluated = [item for item in items if item["evaluated"]]
    num_right = sum(item["correct"] for item in evaluated)
    interval = share_interval(num_right, len(evaluated))
    return {
        **judged.facts,
        "judge": judge,
        "verdicts": file_identity(log.path),
        "n_items": len(items),
        "n_evaluated": len(evaluated),
        "n_not_evaluated": len(items) - len(evaluated),
        "n_missing": sum(bool(item.get("missing")) for item in items),
        "n_correct": num_right,
        "n_judge_replies_cut": sum(item.get(CUT, 0) for item in items),
        "accuracy_of_evaluated": num_right / len(evaluated) if evaluated else None,
        "interval": interval and interval.as_json(),
        "not_evaluated": dict(list(log.failures.items())[:MAX_PROBLEMS_SHOWN]),
        "items": items,
    }


def _item(key: str, question: PairedQuestion, log: VerdictLog) -> dict[str, Any]:
    item: dict[str, Any] = {"index": question.position, "id": question.id}
    if not is_reply(question.reply):
        return item | {"evaluated": True, "correct": False, "missing": True}
    if log.cut.get(key):
        item[CUT] = log.cut[key]
    verdict = log.verdicts.get(key)
    if verdict is None:
        return item | {"evaluated": False, "correct": None}
    return item | {"evaluated": True, "correct": verdict["correct"], "votes": verdict["votes"]}
