"""Which number format models run faster in on this machine: tried once, then remembered."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import torch

from audiollm.data.files.json_document import write_json
from audiollm.data.packages import cache_folder
from audiollm.environment import describe_processor
from audiollm.tokenizer import rates
from audiollm.tokenizer.checkpoints.folders import read_json_object

FIXED_DTYPE = "AUDIOLLM_FASTEST"
"""Environment variable that says what `fastest_dtype` returns, so that a run is the same on any processor."""
_CLEARLY = 1.2  # times faster, before a coarser format is worth it

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
    facts = describe_processor()  # processors of one name may differ in what they multiply with
    kernels = f"{facts['kernels of torch']}, oneDNN {'on' if torch.backends.mkldnn.enabled else 'off'}"
    machine = (
        f"{facts['processor']}, {facts['instructions']}, torch {torch.__version__} ({kernels}), "
        f"{torch.get_num_threads()} threads"
    )
    sizes = f"{rows} x {inputs} x {outputs}, {copies} layers"
    gain = _remembered_gain(f"{machine}: {sizes}", inputs, outputs, rows, copies)
    return "bfloat16" if gain >= _CLEARLY else "float32"


def fastest_dtype_for_frames(device: str = "cpu") -> Literal["float32", "bfloat16"]:
    """The same for models that compute many frames at once, as encoder and decoder of an audio tokenizer do."""
    return fastest_dtype(512, 2048, rows=1024, device=device)


def _checked(stored: Mapping[str, Any]) -> dict[str, float]:
    """Gains as they were kept; raises ValueError where one is no positive number."""
    for name, gain in stored.items():
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not 0 < gain < math.inf:
            raise ValueError(f"{name!r} is {gain!r}, which is no gain")
    return dict(stored)


def _remembered_gain(key: str, inputs: int, outputs: int, rows: int, copies: int) -> float:
    """What `bfloat16_gain` says, from the cache folder if it was asked before."""
    path = cache_folder() / "bfloat16_gains.json"
    gains: dict[str, float] = {}
    try:
        gains = _checked(read_json_object(path)) if path.is_file() else {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read, so it is measured again what is faster here: %s", path, error)
    if key in gains:
        return gains[key]
    gains[key] = rates.bfloat16_gain(inputs, outputs, rows, copies)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, gains)
    except OSError as error:
        logger.warning("what is faster here will be measured every time, as it cannot be kept in %s: %s", path, error)
    return gains[key]
