"""What trl's Trainer logs and when it stops, as the other trainers do it: lines of metrics, SIGTERM, no NaN."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import TrainerCallback

from audiollm.training.loop.errors import NonFiniteLossError
from audiollm.training.loop.record import MetricsLog
from audiollm.training.loop.stopping import RunStoppedError, StopRequest

logger = logging.getLogger(__name__)

_EVALUATION = "eval_"
_LEFT_OUT = ("runtime", "samples_per_second", "steps_per_second", "total_flos")
ALL_ALIKE = "frac_reward_zero_std"
UPDATES_ALIKE = 10  # in a row, until it is said that nothing is learned


class Reporting(TrainerCallback):
    """Writes lines of metrics, stops at numbers that are none, and after an update when the run is asked to.

    Args:
        accelerator: the run's processes.
        metrics: on the main process, ``metrics.jsonl``.
        stop: whether the run has been asked to stop.
    """

    def __init__(self, accelerator: Accelerator, metrics: MetricsLog | None, stop: StopRequest) -> None:
        self._accelerator = accelerator
        self._metrics = metrics
        self._stop = stop
        self._updates_alike = 0
        self.is_stopped = False
        self.loss: float | None = None
        self.evaluation: dict[str, Any] | None = None
        self._progress: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Shows the progress, on the main process only."""
        self._progress = tqdm(
            total=state.max_steps, initial=state.global_step, disable=self._metrics is None, unit="update"
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leaves the bar as it is."""
        if self._progress is not None:
            self._progress.close()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After an update: stops behind a checkpoint if asked to; the last update saves one too."""
        if self._progress is not None:
            self._progress.update()
        if state.global_step >= state.max_steps:
            control.should_save = True
        elif self._stop.is_asked_of_anyone(self._accelerator):
            self.is_stopped = control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Writes what has been logged as a line of metrics.

        Raises:
            NonFiniteLossError: if loss or gradient are no numbers.
        """
        line = line_of_metrics(logs or {}, state.global_step)
        if line is None:
            return
        for name in ("loss", "grad_norm"):
            value = line.get(name)
            if value is not None and not math.isfinite(value):
                raise NonFiniteLossError(
                    f"update {state.global_step}: {name} is {value}; lower learning_rate, or set max_grad_norm. The "
                    "last checkpoint is from before this update"
                )
        if line["event"] == "eval":
            self.evaluation = line
        else:
            self.loss = line.get("loss", self.loss)
            if self._progress is not None:
                self._progress.set_postfix({name: f"{line[name]:.4f}" for name in ("loss", "reward") if name in line})
            self._say_if_nothing_is_learned(line)
        if self._metrics is not None:
            self._metrics.write(line)

    def _say_if_nothing_is_learned(self, line: Mapping[str, Any]) -> None:
        self._updates_alike = self._updates_alike + 1 if line.get(ALL_ALIKE) == 1 else 0
        if self._updates_alike == UPDATES_ALIKE and self._metrics is not None:
            logger.warning(
                "in %d lines in a row all answers to a record were worth the same, so that nothing is learned: look at "
                "rewards in metrics.jsonl; draw more answers (grpo.num_generations), or give finer rewards",
                UPDATES_ALIKE,
            )

    def raise_if_stopped(self, step: int, total_steps: int) -> None:
        """Ends the program as the other trainers end it when they were asked to stop.

        Raises:
            RunStoppedError: if the run was.
        """
        if self.is_stopped and step < total_steps:
            raise RunStoppedError(f"stopped as asked after update {step} of {total_steps}; go on with --resume latest")


def line_of_metrics(logs: Mapping[str, Any], step: int) -> dict[str, Any] | None:
    """What the Trainer logs, in the words of ``metrics.jsonl``; None of the summary at a run's end.

    ``rewards/wer/mean`` becomes ``{"rewards": {"wer": {"mean": …}}}``. A held-out loss of GRPO is left out: it compares
    answers with those of their own group, so that it says nothing about how good they are.
    """
    if "train_runtime" in logs:
        return None
    is_evaluation = any(name.startswith(_EVALUATION) for name in logs)
    line: dict[str, Any] = {"event": "eval" if is_evaluation else "train", "step": step}
    for full_name, value in logs.items():
        *path, name = full_name.removeprefix(_EVALUATION).split("/")
        if (path, name) in [([], one) for one in _LEFT_OUT] or not isinstance(value, int | float | None):
            continue
        inner = line
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = value
    if is_evaluation and "reward" in line:
        line.pop("loss", None)
    return line
