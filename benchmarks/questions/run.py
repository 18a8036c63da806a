"""A whole run of a multiple-choice benchmark: check the data, ask the model, score in every mode."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from audiollm.benchmarks.harness.processes import launched_processes
from audiollm.benchmarks.models.base import AnswerSettings
from audiollm.benchmarks.models.opening import open_audio_chat_model
from audiollm.benchmarks.questions.asking.predicting import PredictingSettings, PredictionReport, predict_questions
from audiollm.benchmarks.questions.grading.scoring import score_file

from .base import MODES, LoadedQuestions, QuestionBenchmark, first_problems
from .checking import check_questions, require_usable
from .data import load_questions
from .registry import benchmark_named
from .report import show_result, write_facts, write_result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuestionRun:
    """How a benchmark is run.

    Attributes:
        output: folder of the predictions and results.
        predicting: what is asked, and how often.
        answering: how answers are generated.
        device: torch device of a model that runs here; None: the first GPU there is.
        dtype: of its weights.
        endpoint_model: name of the model at an endpoint.
        endpoint_key: environment variable with the endpoint's key.
        concurrency: requests to an endpoint at a time.
        require_known_data: refuse questions that are not a known version.
        keep_going: ask what can be asked although recordings cannot be used.
    """

    output: str
    predicting: PredictingSettings = field(default_factory=PredictingSettings)
    answering: AnswerSettings = field(default_factory=AnswerSettings)
    device: str | None = None
    dtype: str = "auto"
    endpoint_model: str | None = None
    endpoint_key: str | None = None
    concurrency: int = 8
    require_known_data: bool = False
    keep_going: bool = False


def run_questions(benchmark: str, data: str, model: str | None, run: QuestionRun, *, scores: bool = True) -> None:
    """Checks, predicts and scores; of several processes the main one checks and scores.

    Args:
        benchmark: its name.
        data: see `data.load_questions`.
        model: see `audiollm.benchmarks.models.opening.open_audio_chat_model`.
        run: how.
        scores: whether replies are scored, too.

    Raises:
        ValueError: if data, model or an earlier run in the output do not fit; see `predict_questions`.
        OSError: if a file is missing.
    """
    questions = benchmark_named(benchmark)
    loaded = load_questions(questions, data)
    launched_processes().from_main(lambda: _check(questions, loaded, run))
    report = _predict(questions, loaded, model, run)
    if scores and report.is_main:
        _score(questions, loaded, data, report, run)


def _check(questions: QuestionBenchmark, loaded: LoadedQuestions, run: QuestionRun) -> None:
    report = check_questions(questions, loaded, limit=run.predicting.limit)
    write_facts(report, Path(run.output) / "check.json")
    if run.keep_going and report["audio_problems"]:
        logger.warning("%d recordings cannot be used and count as not answered", report["n_audio_problems"])
        report = {**report, "audio_problems": {}}
    require_usable(questions, loaded, report, require_known_data=run.require_known_data)


def _predict(
    questions: QuestionBenchmark, loaded: LoadedQuestions, model: str | None, run: QuestionRun
) -> PredictionReport:
    under_test = open_audio_chat_model(
        model,
        settings=run.answering,
        device=run.device,
        dtype=run.dtype,
        endpoint_model=run.endpoint_model,
        key_variable=run.endpoint_key,
        concurrency=run.concurrency,
    )
    report = predict_questions(questions.name, loaded, under_test, run.output, run.predicting)
    if report.failures and report.is_main:
        shown = first_problems((f"{name}: {error}" for name, error in report.failures.items()), limit=3)
        logger.warning("%d of %d questions have no reply: %s", len(report.failures), report.asked, shown)
    return report


def _score(
    questions: QuestionBenchmark, loaded: LoadedQuestions, data: str, report: PredictionReport, run: QuestionRun
) -> None:
    if not any(item.answer for item in loaded.items):
        logger.warning("the answers are withheld, so nothing is scored; the replies are in %s", report.path)
        return
    for mode in MODES:
        result = score_file(questions, str(report.path), data=data, mode=mode)
        write_result(result, Path(run.output) / f"{mode}.json")
        show_result(result, None)
