"""The best evaluation of a run, found in its lines of metrics: nothing else has to be remembered or restored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from audiollm.facts import shown_value

from .figures import scores

DEFAULT_METRICS = ("loss", "mel_distance", "reward")
"""What decides where no metric is named: the first that an evaluation has."""
LOWER_IS_BETTER = (
    "loss", "text_losses", "wer", "false_speech", "relative_quantization_error", "mel_distance", "sound_mel_distance",
    "mcd", "f0_error", "voicing_error", "text_loss", "text_perplexity", "spoken_wer",
)  # fmt: skip
HIGHER_IS_BETTER = (
    "accuracy",
    "accuracy_by_task",
    "emotion_accuracy",
    "code_usage",
    "perplexity",
    "reward",
    "spoken_similarity",
)


@dataclass(frozen=True)
class BestEvaluation:
    """An evaluation that no other one of its run surpasses; of equals the first.

    Attributes:
        step: the update after which it was.
        metric: what decided.
        value: its figure.
    """

    step: int
    metric: str
    value: float

    @property
    def figure(self) -> str:
        return f"{self.metric} {shown_value(self.value)}"

    def __str__(self) -> str:
        return f"{self.figure} after update {self.step}"


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better; its object decides about an inner figure (``accuracy_by_task/describe``).

    Raises:
        ValueError: naming the metrics that are known.
    """
    group = metric.partition("/")[0]
    if group not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        raise ValueError(f"metric_for_best={metric}: use one of {', '.join(LOWER_IS_BETTER + HIGHER_IS_BETTER)}")
    return group in HIGHER_IS_BETTER


def check_metric(evaluation: Mapping[str, Any], metric: str | None) -> None:
    """Refuses a metric that a run's evaluations don't have; one that is None this time is there.

    Raises:
        ValueError: naming those that they have.
    """
    figures = scores(evaluation)
    if metric is not None and metric not in figures and not _is_empty(evaluation, metric):
        raise ValueError(
            f"metric_for_best={metric}: evaluations of this run have no such figure; they have "
            f"{', '.join(figures) or 'none at all'}"
        )


def _is_empty(evaluation: Mapping[str, Any], metric: str) -> bool:
    """Whether the figure is there and None, as where nothing was said in any clip."""
    outer, _, inner = metric.partition("/")
    value = evaluation.get(outer, "absent")
    return (value.get(inner, "absent") if isinstance(value, Mapping) else value) is None


def best_evaluation(
    lines: Iterable[Mapping[str, Any]], metric: str | None, steps: Collection[int] | None = None
) -> BestEvaluation | None:
    """The best of a run's evaluations.

    Args:
        lines: of ``metrics.jsonl``.
        metric: what decides; None: the first of `DEFAULT_METRICS` that an evaluation has.
        steps: only evaluations after these updates count; None: all.

    Returns:
        None if no evaluation has a finite figure.
    """
    best: BestEvaluation | None = None
    for line in lines:
        if line["event"] != "eval" or (steps is not None and line["step"] not in steps):
            continue
        figures = scores(line)  # finite ones
        name = next((one for one in ((metric,) if metric else DEFAULT_METRICS) if one in figures), None)
        if name is None:
            continue
        value = figures[name]
        if best is None or (value > best.value if higher_is_better(name) else value < best.value):
            best = BestEvaluation(line["step"], name, value)
    return best
