"""Steps that need each other's results: which are complete, which may run, and which side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from audiollm.data.files.json_document import write_json

from .launching import console

STEPS_NAME = "steps.json"

StepName = TypeVar("StepName", bound=str)


def run_due_steps(
    folder: Path,
    steps: Sequence[StepName],
    needs: Mapping[StepName, Collection[StepName]],
    run: Callable[[StepName], None],
    *,
    only: StepName | None = None,
    always: Collection[StepName] = (),
    jobs: int = 1,
) -> None:
    """Runs the steps that are not complete yet, and notes in the folder's ``steps.json`` each that is.

    Args:
        folder: the recipe's; it is made.
        steps: all of the recipe, in an order in which they can run.
        needs: step → the steps it needs.
        run: runs a step, in a thread.
        only: run this step alone, complete or not.
        always: those that run although they are complete.
        jobs: how many steps run at once, at most.

    Raises:
        ValueError: if a step that ``only`` names lacks what it needs.
        Exception: what the first step raised that failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    complete = read_steps(folder)
    if only is not None:
        missing = [name for name in needs[only] if name not in complete]
        if missing:
            raise ValueError(f"step {only} needs {', '.join(missing)} first: run it with --only, or all without")
        due: tuple[StepName, ...] = (only,)
    else:
        due = tuple(step for step in steps if step not in complete or step in always)
        for step in steps:
            if step not in due:
                console.print(f"{step}: complete")
    seconds: dict[StepName, float] = {}

    def run_timed(step: StepName) -> None:
        console.rule(step)
        started = time.perf_counter()
        try:
            run(step)
        except BaseException as error:
            # Told now: what runs beside it is waited for.
            console.print(f"  {step} failed: {error}")
            raise
        seconds[step] = round(time.perf_counter() - started, 1)

    def is_complete(step: StepName) -> None:
        write_json(folder / STEPS_NAME, read_steps(folder) | {step: seconds[step]})

    run_steps(due, needs, run_timed, is_complete, jobs=jobs)


def read_steps(folder: Path) -> dict[str, float]:
    """The complete steps of a recipe's folder, each with the seconds that its last call took."""
    path = folder / STEPS_NAME
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def run_steps(
    steps: Sequence[StepName],
    needs: Mapping[StepName, Collection[StepName]],
    run: Callable[[StepName], None],
    complete: Callable[[StepName], None],
    *,
    jobs: int = 1,
) -> None:
    """Runs every step once those that it needs are complete.

    A step that fails lets those beside it come to their end, so that their work is not lost; no other is started.

    Args:
        steps: what is to run; of those that may, earlier ones go first.
        needs: step → the steps it needs; those that are not among ``steps`` count as complete.
        run: runs a step, in a thread.
        complete: called in this thread with each step that has run.
        jobs: how many steps run at once, at most.

    Raises:
        Exception: what the first step raised that failed.
    """
    waiting = list(steps)
    running: dict[Future[None], StepName] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(jobs) as pool:
        while running or (waiting and failure is None):
            for step in [] if failure else _ready(waiting, [*waiting, *running.values()], needs):
                if len(running) < jobs:
                    waiting.remove(step)
                    running[pool.submit(run, step)] = step
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                step = running.pop(future)
                if (error := future.exception()) is None:
                    complete(step)
                else:
                    failure = failure or error
    if failure is not None:
        raise failure


def _ready(
    waiting: Sequence[StepName], pending: Collection[StepName], needs: Mapping[StepName, Collection[StepName]]
) -> list[StepName]:
    """Of the steps that wait, those that need none of the steps that are not complete yet."""
    return [step for step in waiting if not set(needs[step]) & set(pending)]
