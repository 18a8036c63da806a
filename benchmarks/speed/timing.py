"""Timing: paths in turns, so that a busy moment of the machine meets all of them, and the parts of a path."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from audiollm.environment import describe_processor
from audiollm.tokenizer.rates import product_rates

from .flops import count_flops


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


def now(device: torch.device) -> float:
    """Returns a wall clock in seconds, after all queued work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turns(
    paths: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, title: str = ""
) -> dict[str, list[float]]:
    """Times each path ``rounds`` times, alternating, after one run of each that does not count.

    A bar on stderr says how far it is, where that is a terminal.
    """
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    with tqdm(total=(rounds + 1) * len(paths), desc=title, leave=False, disable=None) as progress:
        for number in range(rounds + 1):  # the first round fills caches, allocates and compiles
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
    """Times, real-time factor and speed-up of each path, which one named ``plain`` is compared with.

    Args:
        seconds: what `in_turns` returns.
        audio_seconds: of sound that a path works on.
        bounds: seconds that the matrix products of a path would take alone, where they are known.
    """
    plain = seconds["plain"]
    return {
        name: {
            "min_seconds": min(own),
            "median_seconds": statistics.median(own),
            "real_time_factor": statistics.median(own) / audio_seconds,
            "speedup_min": min(plain) / min(own),
            "speedup_median": statistics.median(plain) / statistics.median(own),
        }
        | ({"share_of_bound": bounds[name] / min(own)} if name in bounds else {})
        for name, own in seconds.items()
    }


def bound_seconds(run: Callable[[], Any], gflops: float) -> float:
    """Seconds that the matrix products and convolutions of a call take at a rate of `machine_facts`."""
    return count_flops(run) / gflops / 1e9


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
