"""What can be done with a multiple-choice benchmark: check the data, ask a model, score its replies, and more."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from audiollm.benchmarks.harness.actions import Actions
from audiollm.benchmarks.harness.figures import print_json
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.benchmarks.judge.asking import JudgeSettings
from audiollm.data.chat.base import EndpointSettings
from audiollm.data.chat.opening import is_endpoint, open_chat_model
from audiollm.environment import find_device
from audiollm.facts import show_facts

from .base import Mode, QuestionBenchmark
from .checking import check_questions, require_usable
from .custom_sets import write_question_set
from .data import load_questions
from .exporting import export_replies
from .grading.judging import judge_predictions, verdicts_path
from .grading.scoring import score_file
from .registry import benchmark_named
from .report import show_result, write_facts
from .run import QuestionRun, run_questions


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Which data are checked."""

    data: str
    """The published file of questions, the folder it is in, or the id of a data set on the Hub."""
    output: str | None = None
    """File for the report as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    limit: int | None = None
    """Look at the first so many recordings only."""
    require_known_data: bool = False
    """Refuse questions that are not a known version."""
    json: bool = False
    """Print the report as JSON."""


@dataclass(frozen=True, kw_only=True)
class CustomSetConfig:
    """What a set of questions is made of."""

    data: str
    """Clips with SAP records, as audiollm label writes them."""
    output_dir: str
    """Folder; gets the file of questions and the recordings."""
    split: str | None = None
    """Clips of this split only."""
    per_clip: int | None = None
    """Most questions about a clip; all that can be asked, if not given."""
    seed: int = 0
    """Of wordings, options and their order."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which replies are written for others."""

    predictions: str
    """A log that predict has written, or any file of predictions."""
    data: str
    """The questions."""
    output: str
    """File, .json or .jsonl."""
    overwrite: bool = False
    """Replace an output that exists."""
    prediction_key: str | None = None
    """Field of the replies, if it is not the official one."""


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Which replies are scored, and by which rule."""

    predictions: str
    """JSON list or JSON lines, one object a question; or a log that predict has written."""
    data: str | None = None
    """The questions; needed where the predictions do not hold them."""
    mode: Mode = "official"
    """official is the published rule with its omissions; strict counts what is missing or unreadable as wrong; extract
    takes the answer out of the reply first."""
    output: str | None = None
    """File for the result as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    prediction_key: str | None = None
    """Field of the replies, if it is not the official one."""
    require_known_data: bool = False
    """Refuse questions that are not a known version."""
    seed: int = 0
    """Of the bootstrap interval."""
    json: bool = False
    """Print the result without its items as JSON."""


@dataclass(frozen=True, kw_only=True)
class JudgingConfig:
    """Which replies are judged, and by whom.

    Verdicts are kept beside the output. Run again to go on, and to ask again what was not evaluated.
    """

    predictions: str
    """JSON list or JSON lines, one object a question; or a log that predict has written."""
    judge: str
    """The URL of an OpenAI-compatible endpoint, or hf: and a folder or Hub id."""
    output: str
    """File for the result as JSON."""
    data: str | None = None
    """The questions; needed where the predictions do not hold them."""
    judge_model: str | None = None
    """Its name at the endpoint; the only one there is, if not given."""
    judge_key: str | None = None
    """Environment variable with the key for the endpoint."""
    prediction_key: str | None = None
    """Field of the replies, if it is not the official one."""
    votes: int = JudgeSettings.votes
    """So often the judge is asked about each reply; an odd number."""
    temperature: float = JudgeSettings.temperature
    """Of the judge; above 0, or else all votes are one."""
    seed: int = JudgeSettings.seed
    """Of the first vote; the others count on from it."""
    concurrency: int = JudgeSettings.concurrency
    """Replies judged at a time."""
    max_failures: int = 10
    """Stop when so many replies in a row get no verdict."""
    max_retries: int = 8
    """So often a failed request is repeated."""
    timeout_seconds: float = 120.0
    """A request without an answer for so long has failed."""
    device: str | None = None
    """Torch device of a local judge; the first GPU when there is one."""
    json: bool = False
    """Print the result without its items as JSON."""

    def __post_init__(self) -> None:
        if is_endpoint(self.judge):
            refuse_idle(self, ["device"], "with an endpoint")
        else:
            of_endpoints = ("judge_model", "judge_key", "max_retries", "timeout_seconds")
            refuse_idle(self, of_endpoints, "with a judge that runs here")


def run(benchmark: QuestionBenchmark, config: QuestionRun) -> None:
    """Check the data, ask a model every question, and score its replies in every mode."""
    run_questions(benchmark, config)


def predict(benchmark: QuestionBenchmark, config: QuestionRun) -> None:
    """Check the data, ask a model every question and keep its replies; run again to go on where a run stopped."""
    run_questions(benchmark, config, scores=False)


def check(benchmark: QuestionBenchmark, config: CheckConfig) -> None:
    """Check the data: their version, the questions, and that every recording can be decoded."""
    loaded = load_questions(benchmark, config.data)
    report = check_questions(benchmark, loaded, limit=config.limit)
    if config.output is not None:
        write_facts(report, config.output)
    show_facts(report, title=f"{benchmark.name}: {config.data}", as_json=config.json)
    require_usable(benchmark, loaded, report, require_known_data=config.require_known_data)


def make(benchmark: QuestionBenchmark, config: CustomSetConfig) -> None:
    """Make a set of questions of your own in this benchmark's layout, from clips with SAP records."""
    report = write_question_set(
        benchmark, config.data, config.output_dir, split=config.split, per_clip=config.per_clip, seed=config.seed
    )
    sys.stdout.write(f"{report}\n")


def export(benchmark: QuestionBenchmark, config: ExportConfig) -> None:
    """Write replies with the questions' own fields, as the published scorer and upload pages take them."""
    count, replied = export_replies(
        benchmark, config.predictions, config.data, config.output, prediction_key=config.prediction_key
    )
    told = f"{count:,} questions, {replied:,} with a reply in {benchmark.prediction_key!r}"
    sys.stdout.write(f"{config.output}: {told}\n")


def score(benchmark: QuestionBenchmark, config: ScoringConfig) -> None:
    """Score a file of predictions: ours, or anybody's with the official fields."""
    result = score_file(
        benchmark,
        config.predictions,
        data=config.data,
        mode=config.mode,
        prediction_key=config.prediction_key,
        require_known_data=config.require_known_data,
        seed=config.seed,
    )
    show_result(result, config.output, as_json=config.json)


def judge(benchmark: QuestionBenchmark, config: JudgingConfig) -> None:
    """Have a chat model say which replies are right: a figure beside the accuracy, never part of it."""
    if not verdicts_path(config.output).exists() and Path(config.output).exists():
        raise ValueError(
            f"{config.output} exists, but is no judging that can go on; delete it, or choose another output"
        )
    endpoint = EndpointSettings(max_retries=config.max_retries, timeout_seconds=config.timeout_seconds)
    result = judge_predictions(
        benchmark,
        config.predictions,
        open_chat_model(
            config.judge,
            config.judge_model,
            key_variable=config.judge_key,
            device=find_device(config.device),
            settings=endpoint,
        ),
        config.output,
        data=config.data,
        prediction_key=config.prediction_key,
        settings=JudgeSettings(
            votes=config.votes, temperature=config.temperature, concurrency=config.concurrency, seed=config.seed
        ),
        max_failures=config.max_failures,
        progress=True,
    )
    if config.json:
        print_json(result, "items")
        return
    share = result["accuracy_of_evaluated"]
    facts = {
        "right of evaluated": f"{share:.4f}" if isinstance(share, float) else "–",
        **{
            name: result[f"n_{name}"]
            for name in ("items", "evaluated", "correct", "missing", "not_evaluated", "judge_replies_cut")
        },
    }
    show_facts(facts, title=f"{benchmark.name}, judged by {result['judge']['model']}")


def question_actions(name: str) -> Actions:
    """The actions of a benchmark.

    Args:
        name: of the benchmark, see ``registry``.
    """
    benchmark = benchmark_named(name)
    functions = (run, make, check, predict, export, score, judge)
    return {function.__name__: partial(function, benchmark) for function in functions}
