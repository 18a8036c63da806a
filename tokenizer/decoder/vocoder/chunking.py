"""Chunks of a long signal: a convolutional network runs over them with the result of running over all at once."""
# Shapes: B rows, C channels, M frames.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_FRAMES = 512
"""Frames to work on at once, over all rows; bounds the memory of long signals."""


@dataclass(frozen=True)
class Chunk:
    """Frames ``first`` to ``last`` of some of the rows."""

    first: int
    last: int
    rows: list[int]
    """Rows that have not ended."""
    counts: Tensor | None
    """Frames of each of these rows within the chunk, ``[len(rows)]``; None where all are full."""

    def take(self, signal: Tensor, scale: int = 1) -> Tensor:
        """Returns the chunk's part of a signal ``[B, C, M * scale]``."""
        part = signal[..., self.first * scale : self.last * scale]
        return part if len(self.rows) == len(signal) else part[self.rows]


def in_chunks(
    run: Callable[[Chunk], Tensor], signal: Tensor, num_frames: list[int] | None, reach: int, scale: int = 1
) -> Tensor:
    """Runs a function of a chunk over all frames; in one go if gradients are recorded.

    Each chunk holds ``reach`` frames more on either side, whose results are cut off, so that the result does not depend
    on the chunks.

    Args:
        run: returns ``[rows, frames * scale]`` for a chunk.
        signal: what is cut, ``[B, C, M]``.
        num_frames: frames of each row; all M if None.
        reach: frames on either side that influence an output.
        scale: outputs per frame.

    Returns:
        float32 ``[B, M * scale]``; zero beyond a row's own frames if ``run`` does so.
    """
    batch_size, total = len(signal), signal.shape[-1]
    lengths = num_frames or [total] * batch_size
    # Each chunk computes 2 * reach frames that are cut off; beside 4 * reach that are kept, they are a third at most.
    size = total if torch.is_grad_enabled() else max(CHUNK_FRAMES // batch_size, 4 * reach)
    if size >= total - reach:
        made = run(_chunk(0, total, list(range(batch_size)), lengths, signal.device))
        return F.pad(made, (0, total * scale - made.shape[1]))
    result = torch.zeros(batch_size, total * scale, device=signal.device)
    start = 0
    while start < max(lengths):
        # A rest shorter than the context is worth no chunk of its own.
        stop = start + size if start + size < total - reach else total
        rows = [row for row in range(batch_size) if lengths[row] > start]
        chunk = _chunk(max(0, start - reach), min(total, stop + reach), rows, lengths, signal.device)
        made = run(chunk)
        stop = min(stop, chunk.last)
        cut = (start - chunk.first) * scale
        result[rows, start * scale : stop * scale] = made[:, cut : cut + (stop - start) * scale]
        start = stop
    return result


def _chunk(first: int, last: int, rows: list[int], lengths: list[int], device: torch.device) -> Chunk:
    counts = [min(lengths[row], last) - first for row in rows]
    last = first + max(counts)
    full = min(counts) == max(counts)
    return Chunk(first, last, rows, None if full else torch.tensor(counts, device=device))
