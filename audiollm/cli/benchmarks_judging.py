"""What ``audiollm bench`` calls for a judge of replies to multiple-choice questions."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable

from .console import show, write_line


def judging_actions(benchmark: str) -> dict[str, Callable[..., None]]:
    """The actions of a benchmark that need a judge.

    Args:
        benchmark: its name, see ``audiollm.benchmarks.questions.base``.
    """

    def judge(
        *,
        predictions: str,
        judge: str,
        output: str,
        data: str | None = None,
        judge_model: str | None = None,
        judge_key: str | None = None,
        prediction_key: str | None = None,
        votes: int = 3,
        temperature: float = 0.7,
        seed: int = 0,
        concurrency: int = 8,
        max_failures: int = 10,
        max_retries: int = 8,
        timeout_seconds: float = 120.0,
        device: str | None = None,
        json: bool = False,
    ) -> None:
        """Have a chat model say which replies are right: a figure beside the accuracy, never part of it.

        Its verdicts are kept beside the output. Run again to go on, and to ask again what was not evaluated.

        Args:
            predictions: JSON list or JSON lines, one object a question; or a log that predict has written.
            judge: the URL of an OpenAI-compatible endpoint, or hf: and a folder or Hub id.
            output: file for the result as JSON.
            data: the questions; needed where the predictions do not hold them.
            judge_model: its name at the endpoint; the only one there is, if not given.
            judge_key: environment variable with the key for the endpoint.
            prediction_key: field of the replies, if it is not the official one.
            votes: so often the judge is asked about each reply; an odd number.
            temperature: of the judge; above 0, or else all votes are one.
            seed: of the first vote; the others count on from it.
            concurrency: replies judged at a time.
            max_failures: stop when so many replies in a row get no verdict.
            max_retries: so often a failed request is repeated.
            timeout_seconds: a request without an answer for so long has failed.
            device: torch device of a local judge; the first GPU when there is one.
            json: print the result without its items as JSON.
        """
        from audiollm.benchmarks.judge.asking import JudgeSettings
        from audiollm.benchmarks.questions.grading.judging import judge_predictions
        from audiollm.benchmarks.questions.registry import benchmark_named
        from audiollm.data.chat.base import EndpointSettings
        from audiollm.data.chat.opening import open_chat_model

        endpoint = EndpointSettings(max_retries=max_retries, timeout_seconds=timeout_seconds)
        settings = JudgeSettings(votes=votes, temperature=temperature, concurrency=concurrency, seed=seed)
        result = judge_predictions(
            benchmark_named(benchmark),
            predictions,
            open_chat_model(judge, judge_model, key_variable=judge_key, device=device, settings=endpoint),
            output,
            data=data,
            prediction_key=prediction_key,
            settings=settings,
            max_failures=max_failures,
            progress=True,
        )
        _show(result, as_json=json, title=f"{benchmark}, judged by {result['judge']['model']}")

    return {"judge": judge}


def _show(result: dict[str, object], *, as_json: bool, title: str) -> None:
    if as_json:
        write_line(jsonlib.dumps({name: value for name, value in result.items() if name != "items"}))
        return
    share = result["accuracy_of_evaluated"]
    facts = {
        "right of evaluated": f"{share:.4f}" if isinstance(share, float) else "–",
        **{name: result[f"n_{name}"] for name in ("items", "evaluated", "correct", "missing", "not_evaluated")},
    }
    show(facts, as_json=False, title=title)
