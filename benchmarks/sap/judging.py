"""A judge for what words alone cannot score: accent, prosody and timbre (yes or no), and the scene (1 to 5).

The judge is a chat model, asked several times about each pair: the majority of its yes and no counts, and the mean of
its ratings. Following the validation of the UniAudio-Token release (arXiv:2605.31521). What the judge says that is no
answer is counted and left out, never read as one; a prediction that says nothing is wrong without asking.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from string import Template

from tqdm import tqdm

from audiollm.benchmarks.judge.asking import JudgeSettings, Vote, ask_judge, judge_prompt, majority, read_verdict
from audiollm.data.chat.asking import ask_all
from audiollm.data.chat.base import ChatModel
from audiollm.data.prompts import Prompt
from audiollm.data.sap.record import SapRecord

from .scoring import attribute, read_prediction

JUDGED_FIELDS = ("accent", "prosody", "timbre")
LOWEST_RATING, HIGHEST_RATING = 1, 5
# The whole reply must be the answer: "3 or 4" is none.
_RATING = re.compile(r"\W*(?:(?:answer|rating|score)\W+)?([1-5])(?: ?/ ?5)?\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A pair to judge.

    Attributes:
        item: which prediction.
        name: of the field, or "scene".
        text: what the judge reads.
    """

    item: int
    name: str
    text: str


@dataclass
class Judgement:
    """What the judge said.

    Attributes:
        scores: ``accent_accuracy`` …, shares in [0, 1]; ``scene_rating``, a mean in [1, 5]; ``num_accent`` …, what they
            are over; absent where no reference says anything.
        votes: of each prediction, by field: true or false, or ratings; None for an answer that is none.
        cut: of each prediction, by field, how many replies of the judge were cut at the longest length.
        unreadable: answers that are none.
        undecided: pairs without a majority of the votes, or a rating, among readable answers; left out of the scores.
        judge: the model.
        prompts: hash of each prompt.
    """

    scores: dict[str, float]
    votes: list[dict[str, list[int | None]]]
    cut: list[dict[str, int]]
    unreadable: int
    undecided: int
    judge: str
    prompts: dict[str, str] = field(default_factory=dict)


def judge_sap(
    predictions: Sequence[str],
    references: Sequence[SapRecord],
    judge: ChatModel,
    settings: JudgeSettings | None = None,
    *,
    progress: bool = False,
) -> Judgement:
    """Scores the free texts of predicted records.

    Args:
        predictions: SAP records as text, as a decoder writes them.
        references: the true record of each.
        judge: a chat model.
        settings: how it is asked.
        progress: show a progress bar.

    Raises:
        ChatError: if the judge does not answer.
        ValueError: if there are not as many predictions as references.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one for each")
    settings = settings or JudgeSettings()
    prompts = {name: judge_prompt(name) for name in ("attribute", "scene")}
    asked: list[Question] = []
    votes: list[dict[str, list[int | None]]] = [{} for _ in references]
    for item, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        for name, question in _questions(item, read_prediction(prediction).record, reference, prompts).items():
            if question is None:  # nothing is said: wrong without asking
                votes[item][name] = [LOWEST_RATING if name == "scene" else 0] * settings.votes
            else:
                asked.append(question)
    cut: list[dict[str, int]] = [{} for _ in references]
    for question, cast in zip(asked, _ask_all(asked, judge, settings, progress), strict=True):
        votes[question.item][question.name] = [vote.answer for vote in cast]
        num_cut = sum(vote.num_cut for vote in cast)
        if num_cut:
            cut[question.item][question.name] = num_cut
    return _judgement(votes, cut, judge.name, {prompt.id: prompt.hash for prompt in prompts.values()})


def _questions(
    item: int, record: SapRecord | None, reference: SapRecord, prompts: dict[str, Prompt]
) -> dict[str, Question | None]:
    """What to ask of a prediction, by field, for the fields that the reference has; None where nothing is predicted."""
    pairs: dict[str, tuple[str | None, str | None]] = {
        name: (attribute(record, name), attribute(reference, name)) for name in JUDGED_FIELDS
    }
    pairs["scene"] = (_scene(record), _scene(reference))
    questions: dict[str, Question | None] = {}
    for name, (predicted, true) in pairs.items():
        if true is None:
            continue
        template = Template(prompts["scene" if name == "scene" else "attribute"].text)
        texts = {"attribute": name, "reference": true, "prediction": predicted}
        questions[name] = None if predicted is None else Question(item, name, template.substitute(texts).strip())
    return questions


def _scene(record: SapRecord | None) -> str | None:
    """The scene as JSON; None if nothing is said of it."""
    if record is None or (record.auditory_scenes.summary is None and not record.auditory_scenes.events):
        return None
    return json.dumps(record.auditory_scenes.to_dict(), ensure_ascii=False)


def _ask_all(
    questions: Sequence[Question], judge: ChatModel, settings: JudgeSettings, progress: bool
) -> list[list[Vote]]:
    """All votes on each question; an answer that is none is asked for once more, with another seed."""

    def vote(question: Question, number: int) -> Vote:
        return ask_judge(judge, question.text, settings, number, _rating if question.name == "scene" else read_verdict)

    pairs = list(itertools.product(questions, range(settings.votes)))
    asked = ask_all(
        pairs, lambda pair: vote(*pair), concurrency=settings.concurrency, max_failures=1, in_order=True, name="judge"
    )
    with closing(asked) as outcomes:
        shown = tqdm(outcomes, total=len(pairs), unit="vote", disable=None if progress else True)
        votes = [outcome.answer for outcome in shown if outcome.answer is not None]  # the first error ends it all
    return [votes[start : start + settings.votes] for start in range(0, len(votes), settings.votes)]


def _rating(text: str) -> int | None:
    match = _RATING.fullmatch(text)
    return None if match is None else int(match[1])


def _mean(votes: Sequence[int | None]) -> float | None:
    readable = [vote for vote in votes if vote is not None]
    return statistics.fmean(readable) if 2 * len(readable) > len(votes) else None


def _judgement(
    votes: list[dict[str, list[int | None]]], cut: list[dict[str, int]], judge: str, prompts: dict[str, str]
) -> Judgement:
    scores: dict[str, float] = {}
    undecided = 0
    for name in (*JUDGED_FIELDS, "scene"):
        decide: Callable[[Sequence[int | None]], float | None] = _mean if name == "scene" else majority
        decisions = [decide(item[name]) for item in votes if name in item]
        decided = [decision for decision in decisions if decision is not None]
        undecided += len(decisions) - len(decided)
        if decided:
            scores["scene_rating" if name == "scene" else f"{name}_accuracy"] = statistics.fmean(decided)
            scores[f"num_{name}"] = float(len(decided))
    unreadable = sum(vote is None for item in votes for answers in item.values() for vote in answers)
    return Judgement(scores, votes, cut, unreadable, undecided, judge, prompts)
