"""Steps that need each other's results: which may run, and which side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

StepName = TypeVar("StepName", bound=str)


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
