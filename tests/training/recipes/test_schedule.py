"""Steps run once what they need is complete, side by side where they may, and a failure loses no other step's work."""

from __future__ import annotations

import threading

import pytest

from audiollm.training.recipes.schedule import run_steps

NEEDS = {
    "data": (),
    "tokenizer": ("data",),
    "vocoder": ("data",),
    "flow": ("tokenizer", "vocoder"),
    "lm": ("tokenizer",),
}


def run(steps: list[str], jobs: int, failing: str | None = None) -> list[str]:
    complete: list[str] = []

    def one(step: str) -> None:
        assert all(need in complete or need not in steps for need in NEEDS[step])
        if step == failing:
            raise RuntimeError(step)

    run_steps(steps, NEEDS, one, complete.append, jobs=jobs)
    return complete


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_step_runs_once_after_those_it_needs(jobs):
    assert sorted(run(list(NEEDS), jobs)) == sorted(NEEDS)


def test_one_job_keeps_the_order():
    assert run(list(NEEDS), 1) == list(NEEDS)


def test_steps_that_are_not_asked_for_count_as_complete():
    assert run(["flow", "lm"], 2) in (["flow", "lm"], ["lm", "flow"])


def test_two_steps_that_may_do_run_side_by_side():
    meeting = threading.Barrier(2, timeout=30)  # broken unless both are there at once
    run_steps(["tokenizer", "vocoder"], NEEDS, lambda step: meeting.wait() and None, lambda step: None, jobs=2)
    assert not meeting.broken


def test_a_failure_starts_nothing_more_and_loses_nothing_that_runs():
    started, complete = [], []
    failed = threading.Event()

    def one(step: str) -> None:
        started.append(step)
        if step == "tokenizer":
            failed.set()
            raise RuntimeError("no tokenizer")
        if step == "vocoder":
            assert failed.wait(30)

    with pytest.raises(RuntimeError, match="no tokenizer"):
        run_steps(list(NEEDS), NEEDS, one, complete.append, jobs=2)
    assert sorted(started) == ["data", "tokenizer", "vocoder"]
    assert complete == ["data", "vocoder"]
