"""How fast this machine multiplies matrices: a bound for everything else, and what a number format gains here.

`product_rates` is about the processor, with matrices as in the layers of an encoder; `square_product_rate` about any
device, with matrices large enough to fill a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.int8 import Int8Linear, has_int8
from audiollm.tokenizer.linear import linear
from audiollm.tokenizer.machine.trials import best_seconds, noise

_ROWS, _INPUTS, _OUTPUTS = 1024, 512, 2048  # as in the layers of an encoder
_MOST_BYTES = 2**27
_SMALL_LLM = 16  # layers: 64 MiB, more than most caches hold
_PROCESSOR = torch.device("cpu")

DEVICE_FORMATS = ("float32", "tf32", "bfloat16", "float16")
"""Of `square_product_rate`."""


def product_rates() -> dict[str, float]:
    """Billions of operations per second in matrix products on the processor, by number format: the best of some tries.

    Takes about a second. "float32" is in the kernel that this package takes, "float32 (BLAS)" in the one of
    ``torch.nn.functional``; "int8" is left out where this torch has no kernel for it.
    """
    layer = nn.Linear(_INPUTS, _OUTPUTS).requires_grad_(False)
    rows = noise(_ROWS, _INPUTS)
    weight = layer.weight
    products: dict[str, Callable[[], Tensor]] = {
        "float32": lambda: linear(rows, weight),
        "float32 (BLAS)": lambda: F.linear(rows, weight),
    }
    rough_rows, rough_weight = rows.bfloat16(), weight.bfloat16()
    products["bfloat16"] = lambda: F.linear(rough_rows, rough_weight)
    if has_int8():
        rounded = Int8Linear(layer)
        products["int8"] = lambda: rounded(rows)
    with torch.inference_mode():
        return {name: _rate(product, 2 * _ROWS * _INPUTS * _OUTPUTS) for name, product in products.items()}


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
    weights = [noise(outputs, inputs) for _ in range(copies)]
    halves = [weight.bfloat16() for weight in weights]
    row, half = noise(rows, inputs), noise(rows, inputs).bfloat16()
    with torch.inference_mode():
        exact = best_seconds(lambda: [F.linear(row, weight) for weight in weights])
        rough = best_seconds(lambda: [F.linear(half, weight) for weight in halves])
    return exact / rough


def seconds_by_threads(hopeless: float) -> dict[int, float]:
    """Seconds that a mix of products takes, by number of threads: 1, 2, 4 and so on up to torch's own number.

    The mix is half layers of an encoder, half single rows through the layers of a small LLM that writes (weighed so
    that both take one second with one thread).

    Args:
        hopeless: how many times slower than the best so far ends the trial, for far too many threads block each other
            for seconds.
    """
    rows, layer = noise(_ROWS, _INPUTS), noise(_OUTPUTS, _INPUTS)
    row, layers = noise(1, _INPUTS), [noise(_OUTPUTS, _INPUTS) for _ in range(_SMALL_LLM)]
    ways: tuple[Callable[[], object], ...] = (
        lambda: F.linear(rows, layer),
        lambda: [F.linear(row, weight) for weight in layers],
    )
    found: dict[int, float] = {}
    alone: list[float] = []
    most = torch.get_num_threads()
    with torch.inference_mode():
        for number in threads_to_try(most):
            with threads(number):
                seconds = [best_seconds(way) for way in ways]
            alone = alone or seconds
            found[number] = sum(own / with_one for own, with_one in zip(seconds, alone, strict=True))
            if found[number] > hopeless * min(found.values()):
                break
    return found


def threads_to_try(most: int) -> list[int]:
    """1, 2, 4 and so on, and ``most``."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside, torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def square_product_rate(number_format: str, device: torch.device, size: int) -> float:
    """Billions of operations per second in products of square matrices of random numbers: the best of some tries.

    Args:
        number_format: one of `DEVICE_FORMATS`; "tf32" are float32 numbers in the multiplier's shorter format.
        device: where it is tried.
        size: rows and columns; 8192 fills a large GPU, and takes a second at most.

    Raises:
        ValueError: for another number format.
    """
    if number_format not in DEVICE_FORMATS:
        raise ValueError(f"number format {number_format!r}: use one of {', '.join(DEVICE_FORMATS)}")
    dtype = torch.float32 if number_format == "tf32" else getattr(torch, number_format)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode(), float32_products(in_tf32=number_format == "tf32"):
        return _rate(lambda: left @ right, 2 * size**3, device)


@contextmanager
def float32_products(*, in_tf32: bool) -> Iterator[None]:
    """Inside, products of float32 matrices are computed in TF32, or in float32, where a device has the choice."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if in_tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rate(product: Callable[[], object], operations: int, device: torch.device = _PROCESSOR) -> float:
    """Billions of operations per second."""
    return operations / best_seconds(product, device) / 1e9
