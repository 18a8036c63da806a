"""Asks a model the questions of a benchmark and writes down what it answers.

Questions are cut into batches of similar length, the same ones whatever is left to do and however many processes share
the work: what a model answers may depend on what it is computed together with, and must not depend on where a run was
interrupted. Each process takes every n-th batch. A batch that fails is asked again one by one.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audiollm.benchmarks.harness.processes import LaunchedProcesses, launched_processes
from audiollm.benchmarks.models.base import AudioChatModel, ChatRequest, WorkedExample
from audiollm.benchmarks.questions.base import LoadedQuestions
from audiollm.benchmarks.questions.items import QuestionItem
from audiollm.benchmarks.questions.predictions import RECORDING_CUT, REPLY_CUT
from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import probe_audio
from audiollm.data.chat.base import ChatError
from audiollm.data.sampling import seed_of
from audiollm.environment import installed_versions

from .asking import AskedQuestion, QuestionOutcome, outcomes_of
from .prediction_log import LoggedAnswers, PredictionLog
from .prompts import QuestionPrompt, asked_choices, prompt_named

RECORDED_PACKAGES = ("audiollm", "torch", "transformers", "tokenizers", "numpy", "soundfile", "soxr", "openai")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictingSettings:
    """How questions are asked.

    Attributes:
        prompt: id of the prompt (`prompts`), or path of a JSON file of one; None: the benchmark's own.
        shuffle_options: seed of the order of options; None: as in the data.
        limit: only so many questions, the first ones.
        batch_size: questions answered at a time by a model that runs here. Part of the run's identity: in most number
            formats an answer may depend on what it is computed together with.
        shots: worked examples before each question, see `predict_questions`.
        max_attempts: a question is asked so often before it counts as failed; the next run asks it again.
        max_failures: stop when so many questions in a row fail.
        progress: show a progress bar.
    """

    prompt: str | None = None
    shuffle_options: int | None = None
    limit: int | None = None
    batch_size: int = 8
    shots: int = 0
    max_attempts: int = 3
    max_failures: int = 10
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "max_attempts", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: use 1 or more")
        if self.shots < 0:
            raise ValueError(f"shots={self.shots}: use 0 or more")


@dataclass(frozen=True)
class PredictionReport:
    """What a run did.

    Attributes:
        path: the merged predictions, ``<output_dir>/predictions.jsonl``; complete when `predict_questions` returns.
        asked: questions of the run.
        answered: of them, with a reply.
        resumed: of those, from earlier runs.
        failures: error of each question without a reply, by id.
        is_main: whether this is the process that goes on to score; true in one process of those launched.
    """

    path: Path
    asked: int
    answered: int
    resumed: int
    failures: dict[str, str]
    is_main: bool


def predict_questions(
    benchmark: str,
    loaded: LoadedQuestions,
    model: AudioChatModel,
    output_dir: str | os.PathLike[str],
    settings: PredictingSettings | None = None,
    examples: LoadedQuestions | None = None,
) -> PredictionReport:
    """Asks a model the questions of a benchmark; goes on where an interrupted run stopped.

    Args:
        benchmark: its name.
        loaded: its questions.
        model: see `audiollm.benchmarks.models.opening.open_audio_chat_model`.
        output_dir: folder of the predictions.
        settings: how questions are asked.
        examples: questions with answers, for ``shots`` worked examples before each question: which ones follows from
            its id; none is about the same recording.

    Raises:
        ChatError: if the model does not answer any more; what is done is kept.
        ValueError: if there are no questions or two of one id; if the folder holds predictions of another prompt,
            model, data or decoding, or is in use.
    """
    settings = settings or PredictingSettings()
    prompt = prompt_named(settings.prompt, benchmark)
    shots = _Shots(examples, settings, prompt, model)
    items = _checked_items(benchmark, loaded.items[: settings.limit])
    # A model that is asked from several threads gets its questions one by one.
    batch_size = 1 if model.concurrency > 1 else settings.batch_size
    processes = launched_processes()
    # Only once: telling a checkpoint's revision may mean to read all of it.
    header = processes.from_main(
        lambda: _header(benchmark, loaded, model, prompt, settings, batch_size) | shots.facts()
    )
    log = PredictionLog(Path(output_dir), header, processes.rank)
    with contextlib.ExitStack() as stack:
        _enter(log, processes, stack)
        earlier = log.read()
        processes.wait()  # all have read before the first writes
        questions = [_asked(item, prompt, settings.shuffle_options, shots) for item in items]
        share = _Share(questions, batch_size, processes)
        _ask_share(share, model, log, earlier, settings)
        processes.wait()
        if processes.is_main:
            log.merge([item.id for item in items])
        answers = log.read()
        processes.wait()
    return PredictionReport(
        path=Path(output_dir) / "predictions.jsonl",
        asked=len(items),
        answered=len(answers.predictions),
        resumed=len(earlier.predictions),
        failures=answers.failures,
        is_main=processes.is_main,
    )


def _checked_items(benchmark: str, items: Sequence[QuestionItem]) -> Sequence[QuestionItem]:
    if not items:
        raise ValueError(f"{benchmark}: there are no questions to ask")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"{benchmark}: two questions have the id {item.id!r}: answers are kept by id")
        seen.add(item.id)
    return items


def _header(
    benchmark: str,
    loaded: LoadedQuestions,
    model: AudioChatModel,
    prompt: QuestionPrompt,
    settings: PredictingSettings,
    batch_size: int,
) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "data_sha256": loaded.revision.sha256,
        "prompt": {"id": prompt.id, "sha256": prompt.sha256},
        "shuffle_options": settings.shuffle_options,
        "model": dict(model.describe()),
        "decoding": {**model.decoding, "batch_size": batch_size},
        "limit": settings.limit,
        "versions": installed_versions(RECORDED_PACKAGES),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _enter(log: PredictionLog, processes: LaunchedProcesses, stack: contextlib.ExitStack) -> None:
    """Opens the logs: the main process's first, which checks all."""

    def enter_first() -> None:
        stack.enter_context(log)

    processes.from_main(enter_first)
    if not processes.is_main:
        stack.enter_context(log)


def _asked(item: QuestionItem, prompt: QuestionPrompt, shuffle_options: int | None, shots: _Shots) -> AskedQuestion:
    choices = asked_choices(item, shuffle_options)
    request = ChatRequest(item.audio, prompt.render(item.question, choices), shots.of(item))
    return AskedQuestion(item, choices, request)


class _Shots:
    """Worked examples: the few shots of a prompt.

    Args:
        examples: questions with answers; None: there are none.
        settings: how many before each question, and how options are ordered.
        prompt: how they are asked.
        model: who is asked.

    Raises:
        ValueError: if the model takes none, or there are not enough.
    """

    def __init__(
        self,
        examples: LoadedQuestions | None,
        settings: PredictingSettings,
        prompt: QuestionPrompt,
        model: AudioChatModel,
    ) -> None:
        self._settings, self._prompt, self._examples = settings, prompt, examples
        self._answered = [] if examples is None else [item for item in examples.items if item.answer]
        if not settings.shots:
            return
        if examples is None:
            raise ValueError(f"shots={settings.shots}: name the questions with answers that examples are taken from")
        if not getattr(model, "takes_examples", False):
            raise ValueError(f"shots={settings.shots}: {type(model).__name__} takes no worked examples; leave it out")

    def of(self, item: QuestionItem) -> tuple[WorkedExample, ...]:
        """Those before a question.

        Raises:
            ValueError: if there are not enough about other recordings.
        """
        chosen: dict[int, QuestionItem] = {}
        for number in range(self._settings.shots):
            start = seed_of("shots", item.id, number) % max(1, len(self._answered))
            around = (*range(start, len(self._answered)), *range(start))
            found = next((place for place in around if place not in chosen and self._fits(place, item)), None)
            if found is None:
                raise ValueError(
                    f"shots={self._settings.shots}: question {item.id} has only {len(chosen)} examples with answers "
                    "about other recordings"
                )
            chosen[found] = self._answered[found]
        return tuple(self._worked(one) for one in chosen.values())

    def _fits(self, place: int, item: QuestionItem) -> bool:
        one = self._answered[place]
        return one.id != item.id and one.audio != item.audio

    def _worked(self, item: QuestionItem) -> WorkedExample:
        choices = asked_choices(item, self._settings.shuffle_options)
        return WorkedExample(item.audio, self._prompt.render(item.question, choices), item.answer)

    def facts(self) -> dict[str, Any]:
        """What the head of predictions says of them; nothing where there are none."""
        if not self._settings.shots or self._examples is None:
            return {}
        return {"shots": self._settings.shots, "shots_sha256": self._examples.revision.sha256}


class _Share:
    """What one process asks.

    Args:
        questions: all questions of the run.
        batch_size: of them at a time.
        processes: who shares them.
    """

    def __init__(self, questions: Sequence[AskedQuestion], batch_size: int, processes: LaunchedProcesses) -> None:
        seconds: dict[str, float] = {}
        unusable: list[tuple[AskedQuestion, AudioError]] = []
        for question in questions:
            try:
                seconds[question.item.id] = probe_audio(question.item.audio).duration_seconds
            except AudioError as error:
                unusable.append((question, error))
        usable = [question for question in questions if question.item.id in seconds]
        # The longest first: what does not fit into memory shows at once, and the last batches wait for nobody.
        usable.sort(key=lambda question: -seconds[question.item.id])
        batches = [usable[start : start + batch_size] for start in range(0, len(usable), batch_size)]
        self.batches = batches[processes.rank :: processes.world_size]
        self.unusable = unusable[processes.rank :: processes.world_size]
        self.is_main = processes.is_main
        asked = [question for question, _ in self.unusable] + [question for batch in self.batches for question in batch]
        self.ids = [question.item.id for question in asked]


def _ask_share(
    share: _Share, model: AudioChatModel, log: PredictionLog, earlier: LoggedAnswers, settings: PredictingSettings
) -> None:
    """Asks what is missing and writes down what comes.

    Raises:
        ChatError: if the model does not answer any more.
    """
    done = earlier.predictions.keys()
    # A batch is asked whole again if only one of it is missing: see the top of this file.
    batches = [batch for batch in share.batches if any(question.item.id not in done for question in batch)]
    is_shown = settings.progress and share.is_main
    num_done = sum(question_id in done for question_id in share.ids)
    writer = _Writer(log, settings.max_failures)
    with (
        contextlib.closing(outcomes_of(batches, model, settings.max_attempts)) as outcomes,
        tqdm(total=len(share.ids), initial=num_done, unit="question", disable=None if is_shown else True) as bar,
    ):
        for question, error in share.unusable:
            if question.item.id not in done:
                log.failed(question.item.id, str(error), attempt=1)
                bar.update()
        for outcome in outcomes:
            if outcome.question.item.id not in done:
                writer.take(outcome)
                bar.update()


class _Writer:
    """Writes outcomes down, and gives up when the model seems to have."""

    def __init__(self, log: PredictionLog, max_failures: int) -> None:
        self._log, self._max_failures = log, max_failures
        # Of questions: `ask_all` counts batches, of which some questions may be answered and others not.
        self._num_failed_in_a_row = 0

    def take(self, outcome: QuestionOutcome) -> None:
        """Writes down what became of a question.

        Raises:
            ChatError: if too many in a row failed.
        """
        question_id, answer = outcome.question.item.id, outcome.answer
        if not outcome.error:
            self._num_failed_in_a_row = 0
            marks = {REPLY_CUT: answer.is_cut, RECORDING_CUT: answer.is_recording_cut}
            self._log.predicted(
                question_id,
                answer.text,
                choices=outcome.question.choices,
                **{name: True for name, is_so in marks.items() if is_so},
                seconds=round(outcome.seconds, 3),
                attempt=outcome.attempt,
            )
            return
        logger.warning("question %s: %s", question_id, outcome.error)
        self._log.failed(question_id, outcome.error, outcome.attempt)
        self._num_failed_in_a_row += 1
        if self._num_failed_in_a_row >= self._max_failures:
            raise ChatError(
                f"the last {self._num_failed_in_a_row} questions all failed, at last with: {outcome.error}. What is "
                "done is kept: run the same command again to go on",
                fatal=True,
            )
