"""A whole run of a multiple-choice benchmark: check the data, ask the model, score in every mode."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from audiollm.benchmarks.harness.identity import require_folder
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.benchmarks.harness.processes import launched_processes
from audiollm.benchmarks.models.base import AnswerSettings
from audiollm.benchmarks.models.opening import open_audio_chat_model
from audiollm.benchmarks.questions.asking.predicting import PredictingSettings, PredictionReport, predict_questions
from audiollm.benchmarks.questions.grading.scoring import score_loaded
from audiollm.data.audio.channels import Mono
from audiollm.data.chat.opening import is_endpoint

from .base import MODES, LoadedQuestions, QuestionBenchmark, first_problems
from .checking import check_questions, require_usable
from .data import load_questions
from .predictions import open_predictions
from .report import show_result, write_facts, write_result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuestionRun:
    """One model and one set of questions.

    The output gets check.json, predictions.jsonl and, where replies are scored, a result for each mode. Run again to go
    on where a run stopped. With accelerate launch, processes share the questions.
    """

    data: str
    """The published file of questions, the folder it is in, or the id of a data set on the Hub."""
    model: str | None = None
    """Folder or Hub id of an Audio-LLM, of ours or of transformers, or the URL of an OpenAI-compatible endpoint; the
    embedded model if not given."""
    output_dir: str | None = None
    """Folder; results/ and the name of the benchmark, if not given."""
    limit: int | None = None
    """Ask only so many questions, the first ones."""
    shuffle_options: int | None = None
    """Seed of the order of options; as in the data, if not given."""
    prompt: str | None = None
    """Id of a prompt, or a JSON file of one; the benchmark's own, if not given."""
    shots: int = 0
    """Worked examples before each question, for models of ours."""
    shots_data: str | None = None
    """Questions with answers that examples are taken from, in the layout of data; none is about the same recording."""
    batch_size: int = PredictingSettings.batch_size
    """Questions that a model on this machine answers at a time."""
    max_new_tokens: int = AnswerSettings.max_new_tokens
    """The longest reply."""
    temperature: float = AnswerSettings.temperature
    """0 for the likeliest reply."""
    mono: Mono | None = None
    """Which channel of a recording is heard: first, or the mean of all. If not given, our models hear the first one,
    those of transformers the mean, and endpoints get plain WAV files with all channels."""
    device: str | None = None
    """Torch device of a model on this machine; the first GPU when there is one."""
    dtype: str = "auto"
    """Of its weights: float32, bfloat16 or float16; as stored, if auto."""
    endpoint_model: str | None = None
    """Name of the model at the endpoint; the only one there is, if not given."""
    endpoint_key: str | None = None
    """Environment variable with the key for the endpoint."""
    concurrency: int = 8
    """Requests to the endpoint at a time."""
    require_known_data: bool = False
    """Refuse questions that are not a known version."""
    keep_going: bool = False
    """Ask what can be asked although recordings cannot be used; these count as not answered."""
    max_failures: int = PredictingSettings.max_failures
    """Stop when so many questions in a row get no reply."""

    def __post_init__(self) -> None:
        if bool(self.shots) != (self.shots_data is not None):
            raise ValueError(f"shots={self.shots}, shots_data={self.shots_data}: give both or neither")
        if self.model is not None and is_endpoint(self.model):
            refuse_idle(self, ["device", "dtype", "batch_size"], "with an endpoint")
        else:
            refuse_idle(self, ["endpoint_model", "endpoint_key", "concurrency"], "with a model that runs here")


def run_questions(benchmark: QuestionBenchmark, config: QuestionRun, *, scores: bool = True) -> None:
    """Checks, predicts and scores; of several processes the main one checks and scores.

    Args:
        benchmark: what is asked.
        config: whom and how.
        scores: whether replies are scored, too.

    Raises:
        ValueError: if data, model or an earlier run in the output do not fit; see `predict_questions`.
        OSError: if a file is missing.
    """
    output = Path(config.output_dir or f"results/{benchmark.name}")
    require_folder(output)
    loaded = load_questions(benchmark, config.data)
    launched_processes().from_main(lambda: _check(benchmark, loaded, config, output))
    report = _predict(benchmark, loaded, config, output)
    if scores and report.is_main:
        _score(benchmark, loaded, report.path, output)


def _check(benchmark: QuestionBenchmark, loaded: LoadedQuestions, config: QuestionRun, output: Path) -> None:
    report = check_questions(benchmark, loaded, limit=config.limit)
    write_facts(report, output / "check.json")
    if config.keep_going and report["audio_problems"]:
        logger.warning("%d recordings cannot be used and count as not answered", report["n_audio_problems"])
        report = {**report, "audio_problems": {}}
    require_usable(benchmark, loaded, report, require_known_data=config.require_known_data)


def _predict(
    benchmark: QuestionBenchmark, loaded: LoadedQuestions, config: QuestionRun, output: Path
) -> PredictionReport:
    model = open_audio_chat_model(
        config.model,
        settings=AnswerSettings(max_new_tokens=config.max_new_tokens, temperature=config.temperature, mono=config.mono),
        device=config.device,
        dtype=config.dtype,
        endpoint_model=config.endpoint_model,
        key_variable=config.endpoint_key,
        concurrency=config.concurrency,
    )
    settings = PredictingSettings(
        prompt=config.prompt,
        shuffle_options=config.shuffle_options,
        limit=config.limit,
        batch_size=config.batch_size,
        shots=config.shots,
        max_failures=config.max_failures,
    )
    examples = None if config.shots_data is None else load_questions(benchmark, config.shots_data)
    report = predict_questions(benchmark.name, loaded, model, output, settings, examples)
    if report.failures and report.is_main:
        shown = first_problems((f"{name}: {error}" for name, error in report.failures.items()), limit=3)
        logger.warning("%d of %d questions have no reply: %s", len(report.failures), report.asked, shown)
    return report


def _score(benchmark: QuestionBenchmark, loaded: LoadedQuestions, replies: Path, output: Path) -> None:
    if not any(item.answer for item in loaded.items):
        logger.warning("the answers are withheld, so nothing is scored; the replies are in %s", replies)
        return
    predictions = open_predictions(str(replies)).read()
    for mode in MODES:
        result = score_loaded(benchmark, loaded, predictions, mode)
        write_result(result, output / f"{mode}.json")
        show_result(result, None)
