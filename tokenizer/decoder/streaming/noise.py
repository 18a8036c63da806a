"""A buffer of noise for a signal of unknown length: frame m gets the same numbers, however the signal is cut."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWN_FRAMES = 64
"""Frames drawn at a time. Always as many, because how torch makes normal numbers of a generator's bits depends on how
many are asked for."""


class NoiseBuffer:
    """Standard normal noise ``[1, channels, frames * scale]``, drawn as it is asked for and forgotten behind that.

    Args:
        channels: of the noise.
        generator: draws it, in order.
        scale: values per frame.
    """

    def __init__(self, channels: int, generator: torch.Generator, scale: int = 1) -> None:
        self._channels = channels
        self._generator = generator
        self._scale = scale
        self._first = 0  # frame at which the kept noise begins
        self._kept = torch.zeros(1, channels, 0, device=generator.device)

    def take(self, start: int, stop: int) -> Tensor:
        """Returns the noise of the frames ``[start, stop)``; no later call may begin before ``start``."""
        scale = self._scale
        parts = [self._kept[:, :, (start - self._first) * scale :]]
        num_frames = parts[0].shape[2] // scale
        while num_frames < stop - start:
            size = (1, self._channels, DRAWN_FRAMES * scale)
            parts.append(torch.randn(size, generator=self._generator, device=self._generator.device))
            num_frames += DRAWN_FRAMES
        self._first, self._kept = start, torch.cat(parts, dim=2)
        return self._kept[:, :, : (stop - start) * scale]
