"""A chat model as a judge: asked several times about each item, several items at a time, and how its words are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from audiollm.data.chat.asking import ask_all
from audiollm.data.chat.base import ChatError, ChatMessage, ChatModel
from audiollm.data.files.json_lines import Record
from audiollm.data.prompts import Prompt

from .log import VerdictLog

_PROMPTS = Path(__file__).parent / "prompts"
# The whole reply must be the answer: "no doubt, yes" is none.
_VERDICT = re.compile(r"\W*(?:answer\W+)?(yes|no)\W*", re.IGNORECASE)
_ANSWER_TOKENS = 512  # a judge may think aloud before it answers
_TRIES = 2  # of one vote: an answer that is none is asked for once more, with another seed


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How a judge is asked.

    Attributes:
        votes: so often about each pair; an odd number, so that yes and no cannot be even.
        temperature: above 0, or else all votes are one.
        concurrency: questions at a time.
        seed: of the first vote; the others count on from it.
    """

    votes: int = 3
    temperature: float = 0.7
    concurrency: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.votes < 1 or self.votes % 2 == 0:
            raise ValueError(f"votes={self.votes}: use an odd number, such as 3")
        if self.temperature < 0 or self.concurrency < 1:
            raise ValueError(
                f"temperature={self.temperature}, concurrency={self.concurrency}: use 0 or more, 1 or more"
            )


@dataclass(frozen=True)
class Vote:
    """What a judge said, asked once.

    Attributes:
        answer: what its reply says; None if it says nothing that can be read.
        num_cut: of the replies it took, those that were cut at the longest length.
    """

    answer: int | None
    num_cut: int = 0


class NoVerdictError(ChatError):
    """The judge answered, but not so that anything follows.

    Args:
        message: what it said.
        num_cut: of its replies, those that were cut at the longest length.
    """

    def __init__(self, message: str, num_cut: int = 0) -> None:
        super().__init__(f"{message}; {told_cuts(num_cut)}" if num_cut else message)
        self.num_cut = num_cut


def told_cuts(num_cut: int) -> str:
    """How many of a judge's replies were cut, in words."""
    replies = "1 reply of the judge was" if num_cut == 1 else f"{num_cut} replies of the judge were"
    return f"{replies} cut after {_ANSWER_TOKENS} tokens"


def judge_prompt(name: str) -> Prompt:
    """What a judge is asked: ``attribute``, ``scene`` or ``question``."""
    return Prompt(f"judge/{name}", (_PROMPTS / f"{name}.md").read_text(encoding="utf-8"))


def ask_judge(
    judge: ChatModel,
    text: str,
    settings: JudgeSettings,
    vote: int,
    read: Callable[[str], int | None],
    *,
    num_attempts: int = 0,
) -> Vote:
    """One vote.

    Args:
        judge: a chat model.
        text: what it reads.
        settings: how it is asked.
        vote: number of the vote, from 0.
        read: what an answer says; None if it says nothing.
        num_attempts: how often all votes on the item were cast before, so that none is cast with the same seed again.

    Raises:
        ChatError: if the judge does not answer.
    """
    num_cut = 0
    for again in range(_TRIES):
        # A number of its own for each vote, try and attempt: votes lie side by side, tries and attempts step over them.
        seed = settings.seed + vote + settings.votes * (_TRIES * num_attempts + again)
        reply = judge.ask(
            [ChatMessage("user", text)], max_tokens=_ANSWER_TOKENS, temperature=settings.temperature, seed=seed
        )
        num_cut += reply.is_cut
        answer = read(reply.text)
        if answer is not None:
            return Vote(answer, num_cut)
    return Vote(None, num_cut)


def read_verdict(text: str) -> int | None:
    """1 for yes, 0 for no, None for anything else."""
    match = _VERDICT.fullmatch(text)
    return None if match is None else int(match[1].lower() == "yes")


def majority(votes: Sequence[int | None]) -> float | None:
    """What more than half of all votes say."""
    # More than half of *all* votes, unreadable ones included: two of three, whatever the third says.
    value, count = Counter(votes).most_common(1)[0]
    return None if value is None or 2 * count <= len(votes) else float(value)


def judge_items(
    items: Sequence[str],
    judge: Callable[[str, int], Record],
    log: VerdictLog,
    *,
    concurrency: int,
    max_failures: int = 10,
    progress: bool = False,
) -> None:
    """Judges the items that have no verdict yet, several at a time.

    Args:
        items: ids of all items.
        judge: gives the verdict on an item, from its id and the number of attempts before. It raises ChatError where
            there is none.
        log: where verdicts go.
        concurrency: items at a time.
        max_failures: stop when so many in a row get no verdict.
        progress: show a progress bar.

    Raises:
        ChatError: if the judge cannot answer at all, or fails too often in a row.
    """
    left = [item for item in items if item not in log.verdicts]
    asked = ask_all(
        left,
        lambda item: judge(item, log.attempts.get(item, 0)),
        concurrency=concurrency,
        max_failures=max_failures,
        name="judge",
    )
    try:
        with closing(asked) as outcomes:
            for outcome in tqdm(outcomes, total=len(left), unit="item", disable=None if progress else True):
                if outcome.answer is not None:
                    log.add_verdict(outcome.item, outcome.answer)
                else:
                    num_cut = outcome.error.num_cut if isinstance(outcome.error, NoVerdictError) else 0
                    log.add_failure(outcome.item, str(outcome.error), num_cut)
    except ChatError as error:
        raise ChatError(f"the judge gave up ({error}); run again to go on", fatal=True) from error
