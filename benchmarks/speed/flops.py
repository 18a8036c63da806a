"""Counts the operations of matrix products and convolutions, which bound how fast anything can run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from audiollm.tokenizer.int8 import INT8_KERNEL

Result = TypeVar("Result")


def counted(run: Callable[[], Result]) -> tuple[Result, int]:
    """Makes a call; returns what it returns, and its floating-point operations: two for each product with its addition.

    Counted are products, convolutions and attention, oneDNN's among them, wherever they happen below the call;
    element-wise work is not, so the bound that follows cannot quite be reached. What is compiled runs as it is written
    meanwhile, and is compiled in the next call.
    """
    with FlopCounterMode(display=False, custom_mapping=_MORE) as counter:
        result = run()
    return result, int(counter.get_total_flops())


def count_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of one call, as `counted` has them."""
    return counted(run)[1]


def _linear_flops(input: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(input) * weight[0]


def _int8_flops(input: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return 2 * math.prod(out_shape) * input[-1]


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


_MORE: dict[Any, Callable[..., int]] = {
    getattr(namespace, name): count
    for namespace, name, count in (
        (torch.ops.mkldnn, "_linear_pointwise", _linear_flops),
        (torch.ops.quantized, INT8_KERNEL, _int8_flops),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention_flops),
    )
    if hasattr(namespace, name)  # not in every build of torch
}
"""Of processors, which torch's own counter leaves out."""
