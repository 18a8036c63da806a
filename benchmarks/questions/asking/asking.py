"""Puts questions to a model, in batches or several at a time, and tells a reply from none."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from audiollm.benchmarks.models.base import AudioChatModel, ChatAnswer, ChatRequest
from audiollm.benchmarks.questions.items import QuestionItem
from audiollm.data.audio.opening import AudioError
from audiollm.data.chat.asking import ask_all
from audiollm.data.chat.base import ChatError

logger = logging.getLogger(__name__)

# What the code of any model may raise for one question: a bad clip, a prompt too long, memory that does not suffice.
# A programming error ends up here too, and stops the run when it meets every question.
MODEL_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
SHOWN_CHARACTERS = 300  # of an error
NO_ANSWER = ChatAnswer("")


@dataclass(frozen=True)
class AskedQuestion:
    """A question as it is put to the model."""

    item: QuestionItem
    choices: tuple[str | None, ...]
    request: ChatRequest


@dataclass(frozen=True)
class QuestionOutcome:
    """What became of a question: a reply or an error."""

    question: AskedQuestion
    answer: ChatAnswer = NO_ANSWER
    error: str = ""
    attempt: int = 1
    seconds: float = 0.0


def outcomes_of(
    batches: Sequence[Sequence[AskedQuestion]], model: AudioChatModel, max_attempts: int
) -> Generator[QuestionOutcome]:
    """Asks batches, as many at a time as the model allows, and yields what becomes of them as it comes.

    Args:
        batches: questions to ask together.
        model: whom.
        max_attempts: a question is asked so often before it has failed.

    Raises:
        ChatError: if the model does not answer any more.
    """
    asked = ask_all(batches, lambda batch: _ask(batch, model, max_attempts), concurrency=model.concurrency)
    with closing(asked) as outcomes_of_batches:
        for outcome in outcomes_of_batches:
            yield from outcome.answer or ()


def _ask(batch: Sequence[AskedQuestion], model: AudioChatModel, max_attempts: int) -> list[QuestionOutcome]:
    """Asks a batch together, and what that leaves open one by one."""
    outcomes = _ask_once(batch, model, 1)
    for index, question in enumerate(batch):
        for attempt in range(2, max_attempts + 1):
            if not outcomes[index].error:
                break
            outcomes[index] = _ask_once([question], model, attempt)[0]
    return outcomes


def _ask_once(batch: Sequence[AskedQuestion], model: AudioChatModel, attempt: int) -> list[QuestionOutcome]:
    started = time.perf_counter()
    answers: Sequence[ChatAnswer | ChatError]
    try:
        answers = model.answer([question.request for question in batch])
        if len(answers) != len(batch):
            raise ValueError(f"the model gave {len(answers)} answers to {len(batch)} questions")
    except MODEL_ERRORS as error:
        if isinstance(error, ChatError) and error.fatal:
            raise
        logger.info("attempt %d failed", attempt, exc_info=True)
        return [QuestionOutcome(question, error=_said(error), attempt=attempt) for question in batch]
    seconds = (time.perf_counter() - started) / len(batch)
    return [
        QuestionOutcome(question, attempt=attempt, seconds=seconds, **_read(answer))
        for question, answer in zip(batch, answers, strict=True)
    ]


def _read(answer: ChatAnswer | ChatError | None) -> Mapping[str, Any]:
    """The answer or the error; nothing but blanks is no answer."""
    if isinstance(answer, ChatError):
        if answer.fatal:
            raise answer
        return {"error": _said(answer)}
    if answer is None:
        answer = NO_ANSWER
    if not answer.text.strip():
        hint = ": max_new_tokens were reached before anything was said, allow more" if answer.is_cut else ""
        return {"error": f"the reply is empty{hint}"}
    return {"answer": answer}


def _said(error: BaseException) -> str:
    """An error on one line, with its kind where the message alone may not tell."""
    message = " ".join(str(error).split())[:SHOWN_CHARACTERS]
    is_ours = isinstance(error, (AudioError, ChatError))
    return message if is_ours and message else f"{type(error).__name__}: {message}".rstrip(": ")
