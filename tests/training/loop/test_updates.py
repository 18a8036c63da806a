from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from audiollm.training.loop.checkpoints import Checkpoints
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.run import RunFolder, RunSummary, TrainingRun
from audiollm.training.loop.updates import Prefetched, Updates, make_updates


def test_batches_come_in_order_each_read_once_in_another_thread():
    threads: list[int] = []

    def read(step: int) -> int:
        threads.append(threading.get_ident())
        return 10 * step

    assert list(Prefetched(read, [3, 4, 7])) == [(3, 30), (4, 40), (7, 70)]
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert list(Prefetched(read, [])) == []


def test_the_next_batch_is_read_while_the_caller_works():
    started = {step: threading.Event() for step in (1, 2, 3)}

    def read(step: int) -> int:
        started[step].set()
        return step

    for step, _ in Prefetched(read, started):
        assert step == 3 or started[step + 1].wait(timeout=10)


def test_settling_waits_for_what_is_being_read():
    may_end, ended = threading.Event(), threading.Event()

    def read(step: int) -> int:
        if step == 2:
            may_end.wait(timeout=10)
            ended.set()
        return step

    batches = Prefetched(read, [1, 2])
    batches.settle()  # before the first there is nothing to wait for
    for step, _ in batches:
        if step == 1:
            assert not ended.is_set()
            may_end.set()
            batches.settle()
            assert ended.is_set()


def test_what_reading_raises_comes_where_its_batch_would():
    def read(step: int) -> int:
        if step == 2:
            raise ValueError("a bad clip")
        return step

    batches = iter(Prefetched(read, [1, 2, 3]))
    assert next(batches) == (1, 1)
    with pytest.raises(ValueError, match="a bad clip"):
        next(batches)


class Run(TrainingRun):
    """A run that writes down what is asked of it, and has no model."""

    def __init__(self, folder: Path, *, total_steps: int, best: int | None = None, **settings: Any) -> None:
        self.config = RunConfig(train_data="x", output_dir=str(folder), eval_data="y", **settings)
        self.folder = RunFolder(folder, Checkpoints(folder / "checkpoints", keep=2), None)
        self.accelerator = Accelerator(cpu=True)
        self.first_step, self.total_steps, self.best = 1, total_steps, None
        self.model_step = best or total_steps
        self.lines: list[dict[str, Any]] = []

    def write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def write_evaluation(self, line: dict[str, Any]) -> None:
        self.write(line)

    def save_if_due(self, step: int) -> None:
        self.write({"event": "saved", "step": step})

    def load_best(self) -> int:
        return self.model_step

    def finish(self, summary: RunSummary, next_command: Sequence[str]) -> RunSummary:
        return summary


def updates(**given: Any) -> Updates[int]:
    parts: dict[str, Any] = {
        "read": lambda step: step,
        "update": lambda step, batch: {"loss": 1 / batch, "tokens": 8},
        "epoch": lambda step: step / 4,
        "unit": "tokens",
        "save_model": lambda step: None,
        "next_command": ["audiollm"],
    }
    return Updates(**parts | given)


def test_an_update_tells_its_epoch_its_speed_and_what_it_waited_for(tmp_path):
    run = Run(tmp_path, total_steps=2)
    summary = make_updates(run, updates())
    lines = [line for line in run.lines if line["event"] == "train"]
    assert [(line["step"], line["epoch"], line["loss"]) for line in lines] == [(1, 0.25, 1.0), (2, 0.5, 0.5)]
    for line in lines:
        assert line["tokens_per_second"] == 8 / line["seconds"]
        assert 0 <= line["data_seconds"] <= line["seconds"]
        assert line["processor_seconds"] >= 0
    assert (summary.steps, summary.loss, summary.evaluation, summary.model_step) == (2, 0.5, None, 2)


def test_evaluations_alarms_and_drawings_come_behind_the_update_and_before_its_checkpoint(tmp_path):
    run = Run(tmp_path, total_steps=2, eval_every=2)
    make_updates(
        run,
        updates(
            evaluate=lambda step: {"loss": 9.0},
            alarms=lambda line: [f"look at {line['event']}"] if line["step"] == 2 else [],
            draw=lambda: run.write({"event": "drawn"}),
        ),
    )
    events = ["train", "saved", "train", "alarm", "eval", "alarm", "drawn", "saved"]
    assert [line["event"] for line in run.lines] == events
    assert [line["message"] for line in run.lines if line["event"] == "alarm"] == ["look at train", "look at eval"]


@pytest.mark.parametrize(("along", "best", "saved"), [(False, None, [4]), (True, None, [2, 4]), (True, 2, [2, 4, 2])])
def test_the_model_that_is_left_is_that_of_the_step_the_run_ends_with(tmp_path, along, best, saved):
    steps: list[int] = []
    run = Run(tmp_path, total_steps=4, save_every=2, best=best)
    summary = make_updates(run, updates(save_model=steps.append, saves_along=along))
    assert (steps, summary.model_step) == (saved, best or 4)
