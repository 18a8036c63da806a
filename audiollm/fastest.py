"""Which number format and how many threads are faster on this machine: tried once, then remembered."""

from __future__ import annotations

import logging
import math
import os
from typing import Literal

import torch

from audiollm.environment import find_device
from audiollm.tokenizer import rates
from audiollm.tokenizer.machine.kernel import fixed_kernel
from audiollm.tokenizer.machine.trials import found_by_trial, is_busy, trials_file

FIXED_DTYPE = "AUDIOLLM_FASTEST"
"""Environment variable that says what `fastest_dtype` returns, so that a run is the same on any processor."""
FIXED_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that torch itself takes its number of threads from: where one is set, it stays."""
_CLEARLY = 1.2  # times faster, before a coarser format, or another number of threads, is worth it
_HOPELESS = 2.0  # times slower than the best: with still more threads it will not be the fastest

logger = logging.getLogger(__name__)


def fastest_dtype(
    inputs: int, outputs: int, *, rows: int, copies: int = 1, device: str = "cpu"
) -> Literal["float32", "bfloat16"]:
    """The number format that linear layers of a size run faster in on this machine.

    On a processor both are tried, which takes less than a second, and what came out is kept in the cache folder for
    the next time; bfloat16 is taken where it is clearly faster. A GPU that has it runs it faster.

    Args:
        inputs: of the layers.
        outputs: of the layers.
        rows: that are multiplied together; 1 where an LLM writes token by token.
        copies: number of layers.
        device: where the model will be.

    Raises:
        ValueError: if $AUDIOLLM_FASTEST is set to something else, or a size is none.
    """
    if min(inputs, outputs, rows, copies) < 1:
        raise ValueError(f"{copies} layers of {inputs} x {outputs} for {rows} rows: all must be at least 1")
    fixed = os.environ.get(FIXED_DTYPE)
    if fixed == "float32":
        return "float32"
    if fixed == "bfloat16":
        return "bfloat16"
    if fixed:
        raise ValueError(f"{FIXED_DTYPE}={fixed}: set it to float32 or bfloat16, or not at all")
    if device != "cpu":
        return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    gain = found_by_trial(
        f"float32's seconds by bfloat16's, {rows} x {inputs} x {outputs}, {copies} layers",
        lambda: rates.bfloat16_gain(inputs, outputs, rows, copies),
    )
    return "bfloat16" if gain >= _CLEARLY else "float32"


def fastest_dtype_for_frames(device: str = "cpu") -> Literal["float32", "bfloat16"]:
    """The same for models that compute many frames at once, as encoder and decoder of an audio tokenizer do."""
    return fastest_dtype(512, 2048, rows=1024, device=device)


def fastest_num_threads() -> int:
    """With how many of torch's threads models run fastest on this processor, of 1, 2, 4 and so on up to all of them.

    Fewer than all are taken where they are clearly faster: in a container that may use less than it sees, or where a
    core has two threads. It is tried once, with matrices of frames and the single rows of an LLM that writes, and kept
    in the cache folder.
    """
    most = torch.get_num_threads()
    if most == 1 or is_busy():  # beside other work fewer threads always look better
        return most
    found = found_by_trial("number of threads", lambda: _fastest_of(rates.seconds_by_threads(_HOPELESS), most))
    if found not in range(1, most + 1):
        raise ValueError(f"{trials_file()} says that {found:g} of {most} threads are the fastest: remove that file")
    return int(found)


def fixed_num_threads() -> str | None:
    """The environment variable that settles the number of threads; None if none does."""
    return next((name for name in FIXED_THREADS if os.environ.get(name)), None)


def device_for_models(device: str | None = None) -> str:
    """`find_device`, and where it is the processor, torch's threads are set to as many as run fastest.

    An environment variable that sets their number is left its say.

    Raises:
        ValueError: see `find_device`; or for an ``$AUDIOLLM_KERNEL`` that there is not, before anything is loaded.
    """
    found = find_device(device)
    if found != "cpu":
        return found
    fixed_kernel()
    if fixed_num_threads() is None:
        number = fastest_num_threads()
        if number != torch.get_num_threads():
            logger.info("%d threads, which are faster here than %d", number, torch.get_num_threads())
            torch.set_num_threads(number)
    return found


def _fastest_of(seconds: dict[int, float], most: int) -> int:
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] * _CLEARLY <= seconds.get(most, math.inf) else most
