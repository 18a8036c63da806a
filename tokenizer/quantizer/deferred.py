"""A deferred update of the codebook: what its passes gather, so that an update may consist of any number of them.

Sums are summed over processes when the update is applied. Rows that restart take frames drawn by a hash of the update's
number, the clip's place in the update and the frame's place in the clip: the draw does not depend on how the clips were
dealt out to passes and processes.
"""
# Shapes: N frames, D feature size, V codebook entries, M dead rows, C candidates.

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

LAST_KEY = 2**63 - 1  # greater than any frame's key: marks places without a candidate


@dataclass(frozen=True)
class CodebookUpdate:
    """What one update did to the codebook; the same on every process."""

    perplexity: float
    """exp(entropy) of the update's codes, 1 to V; 0 if the update had no frame."""
    num_active: int
    """Different codes in the update."""
    num_restarted: int
    """Rows that were hardly used and now hold a frame of this update."""
    num_frames: int = 0
    """Valid frames of the update."""


class DeferredUpdate:
    """Counts, sums and candidates for restarts that this process has seen since the last update."""

    def __init__(self, codebook_size: int, dim: int, device: torch.device) -> None:
        self.counts_V = torch.zeros(codebook_size, device=device)
        self.sums_VD = torch.zeros(codebook_size, dim, device=device)
        self.keys_C = torch.zeros(0, dtype=torch.int64, device=device)
        self.frames_CD = torch.zeros(0, dim, device=device)

    def add(self, features_ND: Tensor, codes_N: Tensor, keys_N: Tensor | None) -> None:
        """Adds the valid frames of one pass, float32; ``keys_N`` makes them candidates for restarts."""
        self.counts_V += torch.bincount(codes_N, minlength=len(self.counts_V))
        self.sums_VD.index_add_(0, codes_N, features_ND)
        if keys_N is None:
            return
        # The frames with the smallest keys of an update are among those with the smallest keys of its passes, so that
        # each pass may forget the rest. No more rows than the codebook has can restart.
        keys_C, order_C = torch.cat([self.keys_C, keys_N]).sort()
        num_kept = len(self.counts_V)
        self.keys_C = keys_C[:num_kept]
        self.frames_CD = torch.cat([self.frames_CD, features_ND])[order_C[:num_kept]]

    def drawn_frames(self, num_rows: int) -> Tensor:
        """Returns the frames with the smallest keys of all processes, ``[<= num_rows, D]``, smallest first."""
        # Filled up to the same length on every process, as all_gather demands.
        keys_M = self.keys_C.new_full((num_rows,), LAST_KEY)
        num_candidates = min(num_rows, len(self.keys_C))
        keys_M[:num_candidates] = self.keys_C[:num_candidates]
        if not is_distributed():
            return self.frames_CD[:num_candidates]
        keys_WM = [torch.empty_like(keys_M) for _ in range(dist.get_world_size())]
        dist.all_gather(keys_WM, keys_M)
        keys, indices = torch.cat(keys_WM).sort()
        indices = indices[:num_rows][keys[:num_rows] != LAST_KEY]
        # Each process puts in the frames that it holds; zeros of the others make the sum of all the frames themselves.
        is_here = indices // num_rows == dist.get_rank()
        frames_MD = self.frames_CD.new_zeros(len(indices), self.frames_CD.shape[1])
        frames_MD[is_here] = self.frames_CD[indices[is_here] % num_rows]
        sum_over_ranks(frames_MD)
        return frames_MD


def frame_keys(update_number: int, example_ids_B: Tensor, num_frames: int) -> Tensor:
    """Hashes frames of clips to pseudo-random numbers, int64 ``[B, T]`` in [0, 2^62).

    Args:
        update_number: which update the clips belong to.
        example_ids_B: place of each clip in the update, int64 ``[B]``.
        num_frames: T.
    """
    frames_T = torch.arange(num_frames, device=example_ids_B.device)
    seed = scramble(torch.tensor(update_number, device=example_ids_B.device))
    # Without the sign bit and below LAST_KEY, which is no frame's.
    return scramble(scramble(seed + example_ids_B.long())[:, None] + frames_T) >> 1 & LAST_KEY >> 1


def scramble(values: Tensor) -> Tensor:
    """Mixes the bits of int64 numbers, one to one (the finalizer of SplitMix64, Steele et al., 2014)."""
    values = values + -0x61C8864680B583EB  # 2^64 / golden ratio; sums and products wrap around
    values = (values ^ _shift_right(values, 30)) * -0x40A7B892E31B1A47
    values = (values ^ _shift_right(values, 27)) * -0x6B2FB644ECCEEE15
    return values ^ _shift_right(values, 31)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    return values >> bits & (1 << 64 - bits) - 1  # torch's shift keeps the sign


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> None:
    """Sums ``tensor`` over all processes, in place; does nothing without a process group."""
    if is_distributed():
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
