"""By which library products of float32 matrices are computed on the processor: the faster one, as a trial says."""

from __future__ import annotations

import logging
import os
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .trials import best_seconds, found_by_trial, noise

Kernel = Literal["onednn", "blas"]
FIXED_KERNEL = "AUDIOLLM_KERNEL"
"""Environment variable that says which library it is, so that a run is the same on any processor."""

_ROWS, _SHAPES = 1024, ((512, 2048), (2048, 512), (512, 512))  # inputs, outputs: the layers of an encoder
_CLEARLY = 1.1  # times faster, before the BLAS is taken: sums are rounded another way, which moves codes at ties

logger = logging.getLogger(__name__)


def float32_kernel() -> Kernel:
    """The library for this machine and the number of threads that torch has now: oneDNN, or torch's own BLAS.

    Which of them is faster differs by a factor of two either way between processors. Both are tried, which takes a
    second, when it is first asked; see `audiollm.tokenizer.machine.trials`. Where oneDNN is switched off
    (``torch.backends.mkldnn``) or absent, it is the BLAS.

    Raises:
        ValueError: if ``$AUDIOLLM_KERNEL`` names none of them, or one that this torch has not.
    """
    fixed = fixed_kernel()
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return "blas"
    return fixed or _kernel_for(torch.get_num_threads())


def fixed_kernel() -> Kernel | None:
    """The library that ``$AUDIOLLM_KERNEL`` names; None if it is not set. Errors as of `float32_kernel`."""
    fixed = os.environ.get(FIXED_KERNEL)
    if not fixed:
        return None
    if fixed == "blas":
        return "blas"
    if fixed != "onednn":
        raise ValueError(f"{FIXED_KERNEL}={fixed}: set it to onednn or blas, or not at all")
    if not torch.backends.mkldnn.is_available():
        raise ValueError(f"{FIXED_KERNEL}=onednn: torch {torch.__version__} has no oneDNN here; set it to blas")
    return "onednn"


def onednn_product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias`` of float32 matrices by oneDNN; it has no derivative."""
    # The operator that torch.compile itself emits for linear layers.
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


@cache
def _kernel_for(num_threads: int) -> Kernel:
    return (
        "blas"
        if found_by_trial("float32 products, oneDNN's seconds by the BLAS's", _blas_gain) > _CLEARLY
        else "onednn"
    )


@torch.inference_mode()
def _blas_gain() -> float:
    """How many times as fast as oneDNN torch's BLAS is."""
    matrices = [(noise(_ROWS, inputs), noise(outputs, inputs)) for inputs, outputs in _SHAPES]
    try:
        onednn = sum(best_seconds(partial(onednn_product, *pair)) for pair in matrices)
    except RuntimeError as error:
        logger.warning("oneDNN is there but multiplies no matrices (%s): torch's BLAS does it", error)
        return 2 * _CLEARLY
    return onednn / sum(best_seconds(partial(F.linear, *pair)) for pair in matrices)
