"""A run's updates, from the first to the trained model: each is read ahead, made, written down, evaluated and saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from accelerate.logging import get_logger

from .config import MODEL_FOLDER
from .record import METRICS_NAME
from .run import RunSummary, TrainingRun
from .schedule import is_due

logger = get_logger(__name__)

Batch = TypeVar("Batch")


class Prefetched(Generic[Batch]):
    """Iterates over ``(step, read(step))``, one batch ahead.

    Args:
        read: called in another thread, for one step at a time. What it raises is raised where its batch would come.
        steps: in their order.
    """

    def __init__(self, read: Callable[[int], Batch], steps: Iterable[int]) -> None:
        self._read = read
        self._steps = steps
        self._upcoming: Future[Batch] | None = None

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        # One thread, one batch ahead: more would hold more audio in memory, and readers are not safe among each other.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch") as reader:
            waiting: tuple[int, Future[Batch]] | None = None
            for step in self._steps:
                self._upcoming = reader.submit(self._read, step)
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = step, self._upcoming
            if waiting is not None:
                yield waiting[0], waiting[1].result()

    def settle(self) -> None:
        """Waits until nothing is being read, for a caller that needs what reading uses: a text tokenizer, say."""
        if self._upcoming is not None:
            wait([self._upcoming])


@dataclass(frozen=True, kw_only=True)
class Updates(Generic[Batch]):
    """What a trainer adds to a run. All processes call all of it, except ``draw``.

    Attributes:
        read: the batch of an update; called in another thread, one ahead.
        update: makes an update of its batch; returns its figures, ``loss`` among them.
        epoch: how often all data have been seen after an update.
        unit: the figure of an update that is also told per second, such as ``tokens``.
        save_model: writes the model as it is after an update, and its card.
        next_command: what uses the trained model next, in capitals what is to be put in.
        saves_along: whether the model is also written whenever a checkpoint is due.
        evaluate: figures on held-out data after an update; None: there are none. Nothing is being read meanwhile.
        alarms: what is to be said of a line that has been written (its ``event`` is train or eval).
        draw: draws what the metrics hold, after an evaluation; the main process alone.
    """

    read: Callable[[int], Batch]
    update: Callable[[int, Batch], dict[str, Any]]
    epoch: Callable[[int], float]
    unit: str
    save_model: Callable[[int], None]
    next_command: Sequence[str]
    saves_along: bool = False
    evaluate: Callable[[int], dict[str, Any]] | None = None
    alarms: Callable[[dict[str, Any]], Iterable[str]] | None = None
    draw: Callable[[], Any] | None = None


def make_updates(run: TrainingRun, updates: Updates[Batch]) -> RunSummary:
    """Makes the updates of a run, takes back the best weights if they are wanted, and saves the model.

    Each line of an update also tells ``seconds``, of which ``data_seconds`` were spent waiting for data, and
    ``processor_seconds``, those of all threads.

    Raises:
        RunStoppedError: after a checkpoint, if the run was asked to stop.
    """
    config = run.config
    loss, evaluation = None, None
    batches = Prefetched(updates.read, run.steps)
    progress = run.with_progress(batches)
    started, used = time.perf_counter(), time.process_time()
    for step, batch in progress:
        waited = time.perf_counter() - started
        figures = updates.update(step, batch)
        line = {"event": "train", "step": step, "epoch": updates.epoch(step), **figures}
        line["seconds"] = time.perf_counter() - started
        line["data_seconds"] = waited  # of these, in which the model had nothing to work on
        line["processor_seconds"] = time.process_time() - used
        line[f"{updates.unit}_per_second"] = line[updates.unit] / line["seconds"]
        loss = line["loss"]
        progress.set_postfix(loss=f"{loss:.4f}", refresh=False)
        run.write_update(line)
        _raise_alarms(run, updates, line)
        evaluates = updates.evaluate is not None and is_due(config.eval_every, step, run.total_steps)
        saves = updates.saves_along and is_due(config.save_every, step, run.total_steps)
        if evaluates or saves:
            batches.settle()  # text and audio tokenizers are not for two threads
        if evaluates:
            evaluation = _evaluate(run, updates, step)
        if saves:
            updates.save_model(step)
        run.save_if_due(step)
        started, used = time.perf_counter(), time.process_time()
    model_step = run.load_best()
    if not updates.saves_along or model_step != run.total_steps:
        updates.save_model(model_step)
    folder = run.folder.path
    summary = RunSummary(
        run.total_steps, loss, evaluation, folder / MODEL_FOLDER, folder / METRICS_NAME, model_step, run.best
    )
    return run.finish(summary, updates.next_command)


def _evaluate(run: TrainingRun, updates: Updates[Batch], step: int) -> dict[str, Any]:
    assert updates.evaluate is not None
    line = {"event": "eval", "step": step, **updates.evaluate(step)}
    run.write_evaluation(line)
    _raise_alarms(run, updates, line)
    if updates.draw is not None and run.accelerator.is_main_process:
        updates.draw()
    return line


def _raise_alarms(run: TrainingRun, updates: Updates[Batch], line: dict[str, Any]) -> None:
    for alarm in () if updates.alarms is None else updates.alarms(line):
        logger.warning("update %d: %s", line["step"], alarm)
        run.write({"event": "alarm", "step": line["step"], "message": alarm})
