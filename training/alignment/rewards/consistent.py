"""Rewards for analyses of a clip: how far what is written agrees with its SAP record, by rules or by a judge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from audiollm.benchmarks.judge.asking import JudgeSettings, ask_judge, judge_prompt, read_verdict
from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.sap.scoring import CLOSED_FIELDS, attribute, read_prediction
from audiollm.data.chat.asking import ask_all
from audiollm.data.chat.base import ChatModel
from audiollm.data.chat.opening import open_chat_model
from audiollm.data.conversation.types import Conversation, TextPart
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SapError, SapRecord

from .base import Answer
from .sounds import AnswerSounds
from .written import text_of_answer

_WORD = re.compile(r"[\w']+")
WORDS_TASKS = ("asr", "transcribe", "transcription")


class SapConsistency:
    """The mean of three marks between 0 and 1, of those that a record's ``sap`` says something about.

    Words: 1 minus the word error rate, at least 0; where nobody speaks 1 if no words are written, else 0. Attributes:
    the share of age, gender and emotion named right. Scene: how many words the summaries and the classes of events
    share, as F1. An answer that no record can be read from is worth 0.

    Of a transcription the words alone count. Says nothing about records without ``sap``, and of other tasks.

    Args:
        sounds: not used: nothing is heard.
        normalizer: of words before they are compared: "english", "basic" (any language) or "none".
        unit: "word", or "character" for languages written without spaces.
    """

    def __init__(self, sounds: AnswerSounds, *, normalizer: str = "english", unit: str = "word") -> None:
        self._wer = load_metric("wer")
        self._options = {"normalizer": normalizer, "unit": unit}

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`.

        Raises:
            ValueError: naming a record whose ``sap`` is none.
        """
        return [self._worth(answer) for answer in answers]

    def _worth(self, answer: Answer) -> float | None:
        true = sap_of(answer.conversation)
        if true is None:
            return None
        if answer.conversation.task in WORDS_TASKS:
            return self._words(answer.text, true)
        if answer.conversation.task != "sap":
            return None
        record = read_prediction(answer.text).record
        if record is None:
            return 0.0
        marks = [self._words(record.linguistic_content or "", true), _attributes(record, true), _scene(record, true)]
        known = [mark for mark in marks if mark is not None]
        return sum(known) / len(known) if known else None

    def _words(self, written: str, true: SapRecord) -> float | None:
        if not true.linguistic_content:
            return float(not written)
        rate = self._wer.compute(predictions=[written], references=[true.linguistic_content], **self._options)["wer"]
        return None if rate is None else 1.0 - min(1.0, rate)  # None: the transcript holds no word


def _attributes(record: SapRecord, true: SapRecord) -> float | None:
    known = [name for name in CLOSED_FIELDS if attribute(true, name) is not None]
    if not known:
        return None
    return sum(attribute(record, name) == attribute(true, name) for name in known) / len(known)


def _scene(record: SapRecord, true: SapRecord) -> float | None:
    wanted, written = _words_of_scene(true), _words_of_scene(record)
    if not wanted:
        return None
    return 2 * (wanted & written).total() / (wanted.total() + written.total())


def _words_of_scene(record: SapRecord) -> Counter[str]:
    scene = record.auditory_scenes
    texts = [scene.summary or "", *(event.label.replace("_", " ") for event in scene.events)]
    return Counter(_WORD.findall(" ".join(texts).lower()))


def sap_of(conversation: Conversation) -> SapRecord | None:
    """The SAP record beside a conversation, if it has one.

    Raises:
        ValueError: naming the record whose ``sap`` is none.
    """
    value: Any = conversation.metadata.get("sap")
    if value is None:
        return None
    where = conversation.where or conversation.id
    if not isinstance(value, str | Mapping):
        raise ValueError(f"{where}: sap is {value!r}: give an object, or JSON text")
    try:
        return parse_sap(value, where=where)
    except SapError as error:
        raise ValueError(str(error)) from error


class JudgedConsistency:
    """The share of a judge's votes by which an answer agrees with the record's own.

    Says nothing where no vote can be read, and about records whose own answer is not text alone.

    Args:
        sounds: not used: nothing is heard.
        judge: base URL of an OpenAI-compatible server, such as ``http://localhost:8000/v1``; or ``hf:`` and a chat
            model that runs here.
        model: its name at the server; None: the only one it has.
        key_variable: environment variable that holds the server's key.
        votes: how often it is asked about each answer, an odd number.
        temperature: of asking.
        concurrency: answers at a time.
    """

    def __init__(
        self,
        sounds: AnswerSounds,
        *,
        judge: str | ChatModel,
        model: str | None = None,
        key_variable: str | None = None,
        votes: int = 1,
        temperature: float = 0.0,
        concurrency: int = 8,
    ) -> None:
        self._judge = open_chat_model(judge, model, key_variable=key_variable) if isinstance(judge, str) else judge
        self._settings = JudgeSettings(votes=votes, temperature=temperature, concurrency=concurrency)
        self._prompt = Template(judge_prompt("consistency").text)

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`.

        Raises:
            ChatError: if the judge does not answer.
        """
        outcomes = ask_all(
            answers, self._share, concurrency=self._settings.concurrency, max_failures=1, in_order=True, name="judge"
        )
        return [None if outcome.answer is None else outcome.answer[0] for outcome in outcomes]

    def _share(self, answer: Answer) -> tuple[float | None]:
        true = text_of_answer(answer.conversation)
        if true is None:
            return (None,)
        asked = " ".join(
            part.text
            for message in answer.conversation.messages[:-1]
            for part in message.content
            if isinstance(part, TextPart)
        )
        text = self._prompt.substitute(request=asked, reference=true, reply=answer.text)
        votes = [
            ask_judge(self._judge, text, self._settings, vote, read_verdict).answer
            for vote in range(self._settings.votes)
        ]
        readable = [vote for vote in votes if vote is not None]
        return (sum(readable) / len(readable) if readable else None,)
