"""Long clips: windows of 30 s that overlap by 4 s, each encoded on its own; at a seam, both give up 2 s of codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WINDOW_FRAMES = 3000  # mel frames: 30 s
STRIDE_FRAMES = 2600
OVERLAP_FRAMES = WINDOW_FRAMES - STRIDE_FRAMES
SEAM_TOKENS = 50  # dropped on either side of a seam: half the overlap at 4 frames per token


def windows(num_frames: int) -> list[tuple[int, int]]:
    """Where the windows of a clip begin and end, in mel frames.

    The published code also begins a window inside the last 4 s, which the one before covers whole: that gives up codes
    that no other window has. It is left out here, so that no code is missing; in all other cases the windows are the
    same.
    """
    if num_frames <= WINDOW_FRAMES:
        return [(0, num_frames)] if num_frames else []
    starts = [start for start in range(0, num_frames, STRIDE_FRAMES) if num_frames - start >= OVERLAP_FRAMES]
    return [(start, min(start + WINDOW_FRAMES, num_frames)) for start in starts]


def merge(codes_of_windows: Sequence[Tensor]) -> Tensor:
    """Joins the codes of a clip's windows, int64 ``[T_i]`` each: at every seam, both sides give up some."""
    last = len(codes_of_windows) - 1
    kept = [
        codes[0 if number == 0 else SEAM_TOKENS : len(codes) if number == last else max(0, len(codes) - SEAM_TOKENS)]
        for number, codes in enumerate(codes_of_windows)
    ]
    return torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64)
