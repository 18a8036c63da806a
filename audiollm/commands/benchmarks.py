"""``audiollm bench``: the benchmarks by name, and what can be done with each.

``BENCHMARKS`` is the registry. Each entry maps an action to a function, whose signature is the interface and whose
docstring is the help, as with the other commands; every parameter is an option (``--data FILE``). The action ``run`` is
what ``audiollm bench NAME --option …`` does; other actions are named: ``audiollm bench mmau score --option …``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from . import benchmarks_speech as speech

Actions = dict[str, Callable[..., None]]


def question_actions(benchmark: str) -> Actions:
    """The actions of a multiple-choice benchmark of audio understanding."""

    def score(
        *,
        predictions: str,
        data: str | None = None,
        mode: Literal["official", "strict", "extract"] = "official",
        output: str | None = None,
        prediction_key: str | None = None,
        seed: int = 0,
        json: bool = False,
    ) -> None:
        """Score a file of predictions: ours, or anybody's with the official fields.

        Args:
            predictions: JSON list or JSON lines, one object a question; or a log that predict has written.
            data: the questions; needed where the predictions do not hold them.
            mode: official is the published rule with its omissions; strict counts what is missing or unreadable as
                wrong; extract takes the answer out of the reply first.
            output: file for the result as JSON.
            prediction_key: field of the replies, if it is not the official one.
            seed: of the bootstrap interval.
            json: print the result without its items as JSON.
        """
        from audiollm.benchmarks.question_benchmark import benchmark_named
        from audiollm.benchmarks.question_report import show_result
        from audiollm.benchmarks.question_scoring import score_file

        result = score_file(
            benchmark_named(benchmark), predictions, data=data, mode=mode, prediction_key=prediction_key, seed=seed
        )
        show_result(result, output, as_json=json)

    return {"score": score}


BENCHMARKS: dict[str, Actions] = {
    "mmau": question_actions("mmau"),
    "mmar": question_actions("mmar"),
    "mmsu": question_actions("mmsu"),
    "seed-tts": {"wer": speech.score_seed_tts_pairs, "sim": speech.score_seed_tts_voices},
    "clustering": {"run": speech.cluster},
}
