"""What short trials said of this machine: made once, kept in the cache folder for every later process."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from audiollm.tokenizer.cache import cache_folder
from audiollm.tokenizer.locks import CopyableLock, held_folder

from .processor import machine_name

_SECONDS = 0.15  # for each way, after one run that does not count
_FEWEST = 3  # runs
_PROCESSOR = torch.device("cpu")

_BUSY = 0.5  # of the cores: work that waited for them, over the last minute

logger = logging.getLogger(__name__)
_one_at_a_time = CopyableLock()  # trials beside each other measure nothing


def trials_file() -> Path:
    """Where what was found is kept: JSON, by question a number."""
    return cache_folder() / "trials.json"


def found_by_trial(question: str, measure: Callable[[], float]) -> float:
    """The number that a trial on this machine came out with, from the cache folder if it was made before.

    What comes out while other work has the cores is taken this time, and tried again the next.

    Args:
        question: what is tried; machine, versions and number of threads are added to it.
        measure: makes the trial, and gives a number above 0. It may ask for no other one.

    Raises:
        ValueError: if the trial gives none.
    """
    key = f"{machine_name()}: {question}"
    with _one_at_a_time:
        kept = _kept()
        if key in kept:
            return kept[key]
        with _alone_among_processes():
            kept = _kept(quietly=True)
            if key in kept:  # another process has answered meanwhile
                return kept[key]
            found = _checked(question, measure())
            if is_busy():
                logger.info("other work is on this machine's cores, so it is tried again next time: %s", question)
            else:
                _keep({**kept, key: found})
            return found


def is_busy() -> bool:
    """Whether other work has this machine's cores, or had them in the last minute; no, where no system says."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; some containers
        return False
    return load > _BUSY * (os.cpu_count() or 1)


def forget_trials() -> None:
    """Has everything tried anew when it is next asked, for what was measured while a machine was busy may be wrong.

    Raises:
        OSError: if the file cannot be removed.
    """
    trials_file().unlink(missing_ok=True)


def noise(*shape: int) -> Tensor:
    """Float32 numbers to try a product with, on the processor.

    They come from a generator of their own: a trial that is made once must not move what a seeded run draws. Nor do
    the defaults decide that the code around it has set, which may be another device, or bfloat16.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


def best_seconds(run: Callable[[], object], device: torch.device = _PROCESSOR) -> float:
    """Seconds of a run that is repeated for a moment: the least."""
    run()  # allocates, and lays weights out
    best, spent, number = math.inf, 0.0, 0
    while spent < _SECONDS or number < _FEWEST:
        started = _now(device)
        run()
        seconds = _now(device) - started
        best, spent, number = min(best, seconds), spent + seconds, number + 1
    return best


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


@contextmanager
def _alone_among_processes() -> Iterator[None]:
    folder = cache_folder()
    with ExitStack() as held:
        with suppress(OSError):  # `_keep` tells
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(held_folder(folder, wait=True))
        yield


def _kept(quietly: bool = False) -> dict[str, float]:
    path = trials_file()
    try:
        stored = json.loads(path.read_bytes()) if path.is_file() else {}
        if not isinstance(stored, dict):
            raise ValueError("it holds no JSON object")
        return {question: _checked(question, number) for question, number in stored.items()}
    except (OSError, ValueError, RecursionError) as error:
        if not quietly:
            logger.warning("%s cannot be read, so it is measured again what is faster here: %s", path, error)
        return {}


def _checked(question: str, number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
        raise ValueError(f"{question!r} is {number!r}, which no trial comes out with")
    return number


def _keep(found: dict[str, float]) -> None:
    path = trials_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            partial.write_text(json.dumps(found, indent=2) + "\n")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        _tell_once(f"what is faster here will be measured every time, as it cannot be kept in {path}: {error}")


@cache
def _tell_once(message: str) -> None:
    logger.warning(message)
