"""Rewards that read: right answers, by the benchmarks' own scorers; lengths; and whether an answer has its form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.questions.grading.reply_reading import read_reply
from audiollm.benchmarks.questions.grading.token_matching import is_right
from audiollm.data.conversation.types import Conversation, TextPart
from audiollm.generation.grammar import check_modalities

from .base import Answer
from .sounds import AnswerSounds


class RightAnswer:
    """1 for a right answer in text and 0 for a wrong one; for transcriptions 1 minus the word error rate, at least 0.

    Records with ``choices`` are graded as benchmarks of questions are, others by exact match without case and
    punctuation. Says nothing about records whose own answer is not text alone.

    Args:
        sounds: not used: nothing is heard.
        mode: of questions with choices: "extract" reads which option an answer names, "official" is the published rule
            of MMAU and MMAR.
        wer_tasks: records with one of these ``task`` values are transcriptions.
        normalizer: of transcriptions: "english", "basic" (any language) or "none".
    """

    def __init__(
        self,
        sounds: AnswerSounds,
        *,
        mode: Literal["extract", "official"] = "extract",
        wer_tasks: Sequence[str] = ("transcribe", "transcription", "asr"),
        normalizer: str = "english",
    ) -> None:
        if mode not in ("extract", "official"):
            raise ValueError(f"mode={mode!r}: use extract or official")
        self._mode = mode
        self._wer_tasks = frozenset([wer_tasks] if isinstance(wer_tasks, str) else wer_tasks)
        self._normalizer = normalizer
        self._accuracy, self._wer = load_metric("accuracy"), load_metric("wer")

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`."""
        return [self._worth(answer) for answer in answers]

    def _worth(self, answer: Answer) -> float | None:
        reference = text_of_answer(answer.conversation)
        if reference is None:
            return None
        choices = choices_of(answer.conversation)
        if choices:
            return float(self._names(answer.text, reference, choices))
        if answer.conversation.task in self._wer_tasks:
            rate = self._wer.compute(
                predictions=[answer.text], references=[reference], normalizer=self._normalizer
            )["wer"]  # fmt: skip
            return None if rate is None else 1.0 - min(1.0, rate)
        return float(self._accuracy.compute(predictions=[answer.text], references=[reference])["accuracy"])

    def _names(self, reply: str, reference: str, choices: Sequence[str]) -> bool:
        if self._mode == "official":
            return is_right(reply, reference, choices)
        return read_reply(reply, choices, reference).option == reference


def text_of_answer(conversation: Conversation) -> str | None:
    """A record's own answer, if the assistant says it in text alone."""
    message = conversation.messages[-1]
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    if message.role != "assistant" or len(texts) < len(message.content) or not texts:
        return None
    return "".join(texts).strip()


def choices_of(conversation: Conversation) -> list[str]:
    """The options of a question; empty for a question without.

    Raises:
        ValueError: naming the record whose ``choices`` are no list of texts.
    """
    choices = conversation.metadata.get("choices")
    if choices is None:
        return []
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{conversation.where or conversation.id}: choices are {choices!r}: give a list of texts")
    return choices


class AnswerLength:
    """How near an answer's length is to the wanted one: 1 at it, 0 at none of it, at twice of it, or if it was cut.

    Args:
        sounds: not used: nothing is heard.
        tokens: the wanted length; None: that of the record's own answer.
    """

    def __init__(self, sounds: AnswerSounds, *, tokens: int | None = None) -> None:
        if tokens is not None and tokens < 1:
            raise ValueError(f"tokens={tokens}: use 1 or more")
        self._tokens = tokens

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`."""
        return [self._worth(answer) for answer in answers]

    def _worth(self, answer: Answer) -> float:
        wanted = self._tokens or answer.num_reference_tokens
        return 0.0 if answer.is_cut else max(0.0, 1.0 - math.fabs(len(answer.token_ids) - wanted) / wanted)


class AnswerForm:
    """1 for an answer that ended by itself, with whole audio segments and nothing in other modalities; else 0.

    Args:
        sounds: not used: nothing is heard.
        modalities: what an answer may hold, and must hold one of; None: what the record's own answer holds.
    """

    def __init__(self, sounds: AnswerSounds, *, modalities: Sequence[str] | None = None) -> None:
        self._modalities = None if modalities is None else check_modalities(modalities)

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`."""
        return [float(self._has_form(answer)) for answer in answers]

    def _has_form(self, answer: Answer) -> bool:
        parts = answer.conversation.messages[-1].content
        own = frozenset("text" if isinstance(part, TextPart) else "audio" for part in parts)
        found = ({"text"} if answer.text.strip() else set()) | ({"audio"} if answer.audio else set())
        is_whole = all(segment.well_formed for segment in answer.audio)
        return not answer.is_cut and is_whole and bool(found) and found <= (self._modalities or own)
