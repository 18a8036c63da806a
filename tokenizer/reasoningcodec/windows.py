"""Long clips: which parts are encoded together, and which codes are decoded together and how they are joined."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .configuration import RECONSTRUCTION_FRAMES, SAMPLE_RATE

ENCODED_SECONDS = 30
"""Of a clip that are encoded together, without overlap."""
DECODED_CODES = 375
"""Reconstruction codes that are decoded together: 30 s."""
REASONING_CODES = 150
"""Of the same time."""
DECODED_HOP = 280
"""Codes from window to window: 22.4 s, a whole number of reasoning codes too (112), so that neither drifts."""
GIVEN_LATENTS = 48
"""Of those that two windows share, how many the second one gets from the first."""

PUBLISHED_SAMPLES = 720_240
_PUBLISHED_STEP = 720_000


@dataclass(frozen=True)
class PublishedWindows:
    """How the published code cuts a clip, so that its very codes can be made.

    Its windows are of 30.01 s, so that codes drift by 10 ms for each; the last one is filled with the beginning of the
    clip. Short clips are repeated until they fill a window.

    Args:
        first_samples: where each window begins in the clip, which goes on with its own beginning.
        reasoning_codes: kept of all that the windows give.
        reconstruction_codes: as those.
    """

    first_samples: tuple[int, ...]
    reasoning_codes: int
    reconstruction_codes: int

    @property
    def num_needed(self) -> int:
        """Windows whose codes are not all dropped."""
        return max(-(-self.reasoning_codes // REASONING_CODES), -(-self.reconstruction_codes // DECODED_CODES))


def published_windows(num_samples: int) -> PublishedWindows:
    """The windows of a clip at 24 kHz, which is not empty."""
    filled = num_samples
    while filled < PUBLISHED_SAMPLES:
        filled *= 2
    first = tuple(index * PUBLISHED_SAMPLES % num_samples for index in range(filled // _PUBLISHED_STEP + 1))
    seconds = num_samples / SAMPLE_RATE
    return PublishedWindows(first, int(seconds * 5) + 1, int(seconds * 12.5) + 1)


@dataclass(frozen=True)
class DecodedWindow:
    """Reconstruction codes that are decoded together.

    Args:
        first: code.
        count: of codes.
        shared: codes at its beginning that the window before has too.
    """

    first: int
    count: int
    shared: int

    @property
    def frames(self) -> int:
        """Latents of it."""
        return self.count * RECONSTRUCTION_FRAMES


def decoded_windows(num_codes: int) -> list[DecodedWindow]:
    """The windows of so many codes; none of no codes."""
    windows = [DecodedWindow(0, min(num_codes, DECODED_CODES), 0)] if num_codes else []
    while windows and windows[-1].first + windows[-1].count < num_codes:
        first = windows[-1].first + DECODED_HOP
        shared = windows[-1].first + windows[-1].count - first
        windows.append(DecodedWindow(first, min(DECODED_CODES, num_codes - first), shared))
    return windows


def cross_faded(before_N: Tensor, after_N: Tensor) -> Tensor:
    """Goes from one sound to another of the same length in a straight line."""
    num_samples = len(before_N)
    share_N = (before_N.new_ones(num_samples).cumsum(0) - 0.5) / num_samples
    return before_N * (1 - share_N) + after_N * share_N
