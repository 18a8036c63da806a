"""Timing: paths in turns, so that a busy moment of the machine meets all of them, and the parts of a path."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from tqdm import tqdm

from audiollm.tokenizer.int8 import has_int8
from audiollm.tokenizer.machine.processor import describe_processor
from audiollm.tokenizer.rates import product_rates

logger = logging.getLogger(__name__)


def machine_facts(**more: object) -> dict[str, Any]:
    """What a figure of speed says of the machine, and ``more`` that its program knows of it.

    ``gflops`` are billions of operations per second in matrix products, see `product_rates`, measured at once.
    """
    return {
        **describe_processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gflops": product_rates(),
        **more,
    }


def standard_variants(on_gpu: bool) -> tuple[Literal["bfloat16", "int8"], ...]:
    """Number formats that are timed where none is asked for: those of this machine; a missing one is told of."""
    if on_gpu:
        return ("bfloat16",)
    if not has_int8():
        logger.warning("int8 is left out: torch %s has no kernel for it on this machine", torch.__version__)
        return ("bfloat16",)
    return ("bfloat16", "int8")


def now(device: torch.device) -> float:
    """Returns a wall clock in seconds, after all queued work of a GPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def set_threads(num_threads: int | None) -> None:
    """Gives torch so many threads; None: leaves it its own.

    Raises:
        ValueError: if it is not positive.
    """
    if num_threads is None:
        return
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads}: use 1 or more")
    torch.set_num_threads(num_threads)


def in_turns(
    paths: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    title: str = "",
    *,
    has_run: bool = False,
) -> dict[str, list[float]]:
    """Times each path ``rounds`` times, alternating, after one run of each that does not count.

    A bar on stderr says how far it is, where that is a terminal.

    Args:
        paths: what is timed.
        rounds: timings of each.
        device: that it runs on.
        title: of the bar.
        has_run: whether each path has had its first run, which fills caches, allocates and compiles (see `counted`).
    """
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    first = 1 if has_run else 0
    with tqdm(total=(rounds + 1 - first) * len(paths), desc=title, leave=False, disable=None) as progress:
        for number in range(first, rounds + 1):
            for name, run in paths.items():
                progress.set_postfix_str(name)
                start = now(device)
                run()
                if number:
                    seconds[name].append(now(device) - start)
                progress.update()
    return seconds


def path_figures(
    seconds: Mapping[str, Sequence[float]], audio_seconds: float, bounds: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Times and real-time factor of each path, and its speed-up where there is one named ``plain``.

    Args:
        seconds: what `in_turns` returns.
        audio_seconds: of sound that a path works on.
        bounds: seconds that the matrix products of a path would take alone, where they are known.
    """
    figures = {}
    for name, own in seconds.items():
        figures[name] = {
            "min_seconds": min(own),
            "median_seconds": statistics.median(own),
            "real_time_factor": statistics.median(own) / audio_seconds,
        }
        if plain := seconds.get("plain"):
            figures[name]["speedup_min"] = min(plain) / min(own)
            figures[name]["speedup_median"] = statistics.median(plain) / statistics.median(own)
        if name in bounds:
            figures[name]["share_of_bound"] = bounds[name] / min(own)
    return figures


def bound_seconds(flops: Mapping[str, int], gflops: Mapping[str, float]) -> dict[str, float]:
    """Seconds that the matrix products and convolutions of each path would take alone.

    Args:
        flops: operations by path, see `counted`.
        gflops: of `machine_facts`, by number format; a path that is not named after one computes in float32.
    """
    return {name: count / gflops.get(name, gflops["float32"]) / 1e9 for name, count in flops.items()}


class PartTimer:
    """Adds up the seconds spent in named parts."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device = device

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = now(self.device)
        yield
        self.seconds[name] += now(self.device) - start

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return timed
