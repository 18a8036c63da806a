"""What is refused as a waveform, naming the clip and the mend."""
# Shapes: B clips, N samples.

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

LARGEST_SAMPLE = 2.0**31  # 32-bit integers as floats; beyond, powers of a spectrum overflow


def check_waveforms(waveforms: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Returns a list of float32 vectors.

    Raises:
        ValueError: naming the first clip that is not a finite float vector.
    """
    if isinstance(waveforms, np.ndarray):
        raise ValueError("waveforms are a numpy array; pass a float tensor, torch.from_numpy(samples)")
    if not isinstance(waveforms, Iterable):
        raise ValueError(f"waveforms are a {type(waveforms).__name__}; pass [N], [B, N] or a list of [N]")
    if isinstance(waveforms, Tensor) and waveforms.dim() == 1:
        waveforms = [waveforms]
    elif isinstance(waveforms, Tensor) and waveforms.dim() != 2:
        raise ValueError(f"waveforms have shape {list(waveforms.shape)}; pass [N], [B, N] or a list of [N]")
    return [check_waveform(waveform, f"clip {index}") for index, waveform in enumerate(waveforms)]


def check_waveform(waveform: Tensor, name: str) -> Tensor:
    """Returns ``waveform`` as float32 ``[N]``; ``name`` says in an error which one it is.

    Raises:
        ValueError: if it is not a vector, not floating point, or not finite.
    """
    if not isinstance(waveform, Tensor):
        raise ValueError(f"{name} is a {type(waveform).__name__}; pass a float tensor [N]")
    if waveform.dim() != 1:
        raise ValueError(f"{name} has shape {list(waveform.shape)}; mix or select channels first, so that it is [N]")
    if not waveform.is_floating_point():
        raise ValueError(
            f"{name} is {waveform.dtype}; convert to float in [-1, 1], e.g. int16 samples divided by 32768"
        )
    waveform = waveform.detach().float()
    if not waveform.numel():
        return waveform
    lowest, highest = waveform.aminmax()  # NaN if any sample is
    peak = float(torch.maximum(-lowest, highest))
    if not math.isfinite(peak):
        first = int((~torch.isfinite(waveform)).nonzero()[0])
        raise ValueError(
            f"{name} holds NaN or infinity (first at sample {first} of {len(waveform)}); repair or drop it"
        )
    if peak > LARGEST_SAMPLE:
        raise ValueError(f"{name} has samples as large as {peak:.3g}; scale it to [-1, 1], or drop it")
    return waveform
