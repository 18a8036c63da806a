"""How fast this machine multiplies matrices: a bound for everything else, and what a number format gains here."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.int8 import Int8Linear, input_levels
from audiollm.tokenizer.linear import linear

_ROWS, _INPUTS, _OUTPUTS = 1024, 512, 2048  # as in the layers of an encoder
_SECONDS = 0.15  # for each format, after one product that does not count
_FEWEST = 3  # products
_MOST_BYTES = 2**27


def product_rates() -> dict[str, float]:
    """Billions of operations per second in matrix products on the processor, by number format: the best of some tries.

    Takes about a second. "float32" is in the kernel that this package takes, "float32 (BLAS)" in the one of
    ``torch.nn.functional``; "int8" is left out where this torch has no kernel for it.
    """
    layer = nn.Linear(_INPUTS, _OUTPUTS).requires_grad_(False)
    rows = torch.randn(_ROWS, _INPUTS)
    weight = layer.weight
    products: dict[str, Callable[[], Tensor]] = {
        "float32": lambda: linear(rows, weight),
        "float32 (BLAS)": lambda: F.linear(rows, weight),
    }
    rough_rows, rough_weight = rows.bfloat16(), weight.bfloat16()
    products["bfloat16"] = lambda: F.linear(rough_rows, rough_weight)
    if _has_int8():
        rounded = Int8Linear(layer)
        products["int8"] = lambda: rounded(rows)
    with torch.inference_mode():
        return {name: _rate(product) for name, product in products.items()}


def bfloat16_gain(inputs: int, outputs: int, rows: int, copies: int = 1) -> float:
    """How many times as fast as in float32 this processor multiplies matrices in bfloat16, layers of a model in turn.

    Args:
        inputs: of each layer.
        outputs: of each layer.
        rows: that are multiplied together: 1 where an LLM writes token by token, and weights come from memory.
        copies: layers; as many as the model has, so that they are in a cache here only if they are there. At most
            what 128 MiB hold.
    """
    copies = max(1, min(copies, _MOST_BYTES // (4 * inputs * outputs)))
    weights = [torch.randn(outputs, inputs) for _ in range(copies)]
    halves = [weight.bfloat16() for weight in weights]
    row, half = torch.randn(rows, inputs), torch.randn(rows, inputs).bfloat16()
    with torch.inference_mode():
        exact = _best_seconds(lambda: [F.linear(row, weight) for weight in weights])
        rough = _best_seconds(lambda: [F.linear(half, weight) for weight in halves])
    return exact / rough


def _has_int8() -> bool:
    try:
        input_levels()
    except ValueError:
        return False
    return True


def _rate(product: Callable[[], object]) -> float:
    """Billions of operations per second."""
    return 2 * _ROWS * _INPUTS * _OUTPUTS / _best_seconds(product) / 1e9


def _best_seconds(product: Callable[[], object]) -> float:
    product()  # allocates, and lays weights out
    best, spent, number = float("inf"), 0.0, 0
    while spent < _SECONDS or number < _FEWEST:
        started = time.perf_counter()
        product()
        seconds = time.perf_counter() - started
        best, spent, number = min(best, seconds), spent + seconds, number + 1
    return best
