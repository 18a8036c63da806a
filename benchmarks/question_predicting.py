"""Asks a model the questions of a benchmark and writes down what it answers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .models_under_test.audio_chat_model import AudioChatModel
from .question_benchmark import LoadedQuestions


@dataclass(frozen=True, kw_only=True)
class PredictingSettings:
    """How questions are asked.

    Attributes:
        prompt: id of the prompt (`question_prompts`), or path of a JSON file of one; None: the benchmark's own.
        shuffle_options: seed of the order of options; None: as in the data.
        limit: only so many questions, the first ones.
        batch_size: questions answered at a time by a model that runs here. Part of the run's identity: in most number
            formats an answer may depend on what it is computed together with.
        max_attempts: a question is asked so often before it counts as failed; the next run asks it again.
        max_failures: stop when so many questions in a row fail.
        progress: show a progress bar.
    """

    prompt: str | None = None
    shuffle_options: int | None = None
    limit: int | None = None
    batch_size: int = 8
    max_attempts: int = 3
    max_failures: int = 10
    progress: bool = True


@dataclass(frozen=True)
class PredictionReport:
    """What a run did.

    Attributes:
        path: the merged predictions, ``<output>/predictions.jsonl``; complete when `predict_questions` returns.
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
    output: str | os.PathLike[str],
    settings: PredictingSettings | None = None,
) -> PredictionReport:
    """Asks a model the questions of a benchmark; goes on where an interrupted run stopped.

    Args:
        benchmark: its name.
        loaded: its questions.
        model: see `models_under_test.audio_chat_model.open_audio_chat_model`.
        output: folder of the predictions.
        settings: how questions are asked.

    Raises:
        ChatError: if the model does not answer any more; what is done is kept.
        ValueError: if the folder holds predictions of another prompt, model, data or decoding, or is in use.
    """
    raise NotImplementedError
