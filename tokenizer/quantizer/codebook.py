"""Nearest-neighbour codebook with exponential-moving-average training and dead-code restart.

Vector quantization after van den Oord et al., 2017 (arXiv:1711.00937, appendix A.1 for the moving averages) with
Laplace-smoothed counts (Razavi et al., 2019, arXiv:1906.00446) and restarts of unused rows (Dhariwal et al., 2020,
arXiv:2005.00341). With a process group, every rank ends each update with identical buffers.
"""
# Shapes: B batch, T frames, N frames of a whole batch, D feature size, P metric size, V codebook entries, M dead rows.

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.linear import linear

from .deferred import CodebookUpdate, DeferredUpdate, frame_keys, is_distributed, sum_over_ranks
from .usage import RemembersCodes, perplexity_of

logger = logging.getLogger(__name__)

COUNT_EPSILON = 1e-5  # Laplace smoothing of the counts
SCORE_GROUP = 128  # scores of a frame that are compared at once
SEARCH_ROWS = 256  # frames searched at once: their [256, 8192] float32 scores stay in the processor's cache


@dataclass
class CodebookOutput:
    """One pass through the codebook; the statistics are there in training only."""

    quantized: Tensor  # [B, T, D], value of the entries, gradient of the input
    codes: Tensor  # [B, T] int64
    loss: Tensor | None = None  # scalar float32
    perplexity: Tensor | None = None  # scalar: exp(entropy) of the codes of all processes in this batch, 1 to V
    num_active: Tensor | None = None  # scalar int64: different codes in this batch over all processes
    num_restarted: int = 0
    squared_error: Tensor | None = None  # [B, T] float32, detached: mean over D of (feature - entry)^2


class SearchIndex(NamedTuple):
    """The entries made ready for searching; it must be made anew when they move."""

    points: Tensor  # [V, P] float32, where the entries lie in the space in which distances are measured
    half_norms: Tensor  # [V] float32, |point|²/2
    origin: Tensor | None  # [P] float32, of that space; None: the features' own space, nothing to be moved


class Codebook(RemembersCodes):
    """Replaces each frame by its nearest row of ``weight`` [V, D]; gradients pass straight through.

    Args:
        codebook_size: V.
        dim: feature size D.
        ema_decay: decay of the moving averages; None makes ``weight`` a parameter trained by its own loss term.
        restart_interval: updates between restarts of dead rows; None never restarts.
        restart_below: count below which a row is dead, and that which a new one starts with; None: what the averages
            would have made of a count of one since the last restart, and one.
        keeps_smoothed_counts: whether the smoothing of the counts is kept, as the released trainer of UniAudio-Token
            does; else it serves the division alone.
        commit_coefficient: weight of the commitment term, which pulls the features to their entries.
        loss_scale: weight of the whole loss.
        metric_size: P, dimensions of the space in which distances to entries are measured, a linear map of the features
            (`fit_entries` fits it; until then it is their first P channels); None: the features' own space.

    Buffers: ``metric`` [P, D] (with a metric size only), ``ema_count`` [V] and ``ema_weight`` [V, D] (with EMA only),
    ``recent_codes`` [4 V] (this process's latest codes, newest last) and ``num_updates`` (so that a resumed run
    restarts rows at the same steps). A data-parallel wrapper must not copy buffers from rank 0
    (``broadcast_buffers=False``): they agree by themselves, but for ``recent_codes``, which is each process's own.

    With ``deferred`` set to True, a pass in training mode only gathers, and `apply_update` does one update of
    what was gathered: for updates of many passes, unevenly many per process. All buffers then agree on all processes,
    and do not depend on how the clips of an update were dealt out to passes and processes (but for rounding).

    With ``frozen`` set to True, neither averages nor restarts move the entries of a codebook in training mode; the rest
    of an update is as ever.

    Weight and statistics stay float32 when the model around them is cast.
    """

    deferred = False
    frozen = False

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        ema_decay: float | None = None,
        restart_interval: int | None = None,
        restart_below: float | None = None,
        keeps_smoothed_counts: bool = True,
        commit_coefficient: float = 0.25,
        loss_scale: float = 1.0,
        metric_size: int | None = None,
    ) -> None:
        super().__init__(codebook_size)
        self.dim = dim
        self.ema_decay = ema_decay
        self.restart_interval = restart_interval
        self.restart_below = restart_below
        self.keeps_smoothed_counts = keeps_smoothed_counts
        self.commit_coefficient = commit_coefficient
        self.loss_scale = loss_scale
        # Entries stay in the features' own space: the mean of some frames is their mean in every linear map of it.
        self.register_buffer("metric", None if metric_size is None else torch.eye(metric_size, dim))
        # Moved by averages, the entries are none of the optimizer's business.
        self.weight = nn.Parameter(torch.randn(codebook_size, dim) * 0.02, requires_grad=ema_decay is None)
        if ema_decay is not None:
            # Every entry as if seen once: sums and counts agree with the entries from the first update on.
            self.register_buffer("ema_count", torch.ones(codebook_size))
            self.register_buffer("ema_weight", self.weight.detach().clone())
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self._deferred_update: DeferredUpdate | None = None

    metric: Tensor | None
    ema_count: Tensor
    ema_weight: Tensor
    num_updates: Tensor

    def extra_repr(self) -> str:
        return f"{self.codebook_size}, {self.dim}, ema_decay={self.ema_decay}, restart={self.restart_interval}"

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Codebook:
        def keep_dtype(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            # A bf16 moving average would stand still: the change of a step is below its last digit.
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        super()._apply(keep_dtype, recurse)
        return self

    # ------------------------------------------------------------------ search

    @property
    def lacks_fit(self) -> bool:
        """Whether there is a metric that nothing was fitted to yet: the first channels of the features."""
        return self.metric is not None and torch.equal(self.metric, torch.eye(*self.metric.shape).to(self.metric))

    @torch.no_grad()
    def points(self) -> Tensor:
        """Returns the entries in the space in which distances are measured, float32 ``[V, P]``, or ``[V, D]``."""
        entries_VD = self.weight.detach().float()
        if self.metric is None:
            return entries_VD
        with torch.autocast(entries_VD.device.type, enabled=False):  # as in `encode`
            return linear(entries_VD, self.metric)

    def search_index(self) -> SearchIndex:
        """Makes the entries ready for searching; pass it to `encode` when calling that often."""
        points_VP, origin_P = self.points(), None
        if self.metric is not None:
            # Distances know no origin; around the middle of the entries, products keep the digits that tell them apart.
            origin_P = points_VP.mean(dim=0)
            points_VP = points_VP - origin_P
        return SearchIndex(points_VP, points_VP.square().sum(dim=-1) / 2, origin_P)

    @torch.no_grad()
    def encode(self, features_BTD: Tensor, index: SearchIndex | None = None) -> Tensor:
        """Finds the nearest entry of each frame; the first one wins a tie.

        Args:
            features_BTD: encoder output, any float dtype, ``[..., D]``.
            index: `search_index` of the present entries, made here if None.

        Returns:
            Codes in ``[0, V)``, int64, ``[...]``.

        Raises:
            ValueError: if the last axis is not D.
        """
        if features_BTD.shape[-1] != self.dim:
            raise ValueError(
                f"features have {features_BTD.shape[-1]} channels but the codebook holds {self.dim}-d entries; "
                "d_model of the configuration must be the encoder's output size"
            )
        # float32 on purpose, also under autocast: bf16 keeps 8 significant bits, so near ties pick the wrong entry.
        with torch.autocast(features_BTD.device.type, enabled=False):
            index = self.search_index() if index is None else index
            features_ND = features_BTD.detach().reshape(-1, self.dim).float()
            codes = [self._nearest(rows_ND, index) for rows_ND in features_ND.split(SEARCH_ROWS)]
        return torch.cat(codes).view(features_BTD.shape[:-1])

    def _nearest(self, rows_ND: Tensor, index: SearchIndex) -> Tensor:
        """Codes of some frames: |x - e|² = |x|² - 2 (x·e - |e|²/2), of which |x|² is the same for all entries."""
        if self.metric is not None and index.origin is not None:
            rows_ND = linear(rows_ND, self.metric, -index.origin)
        return first_largest(linear(rows_ND, index.points, -index.half_norms))

    def lookup(self, codes_BT: Tensor) -> Tensor:
        """Returns the entries of codes, ``[B, T, D]``.

        Raises:
            ValueError: if a code is outside [0, V).
        """
        check_codes(codes_BT, self.codebook_size)
        return F.embedding(codes_BT, self.weight)

    def forward(
        self,
        features_BTD: Tensor,
        mask_BT: Tensor | None = None,
        codes_BT: Tensor | None = None,
        example_ids_B: Tensor | None = None,
    ) -> CodebookOutput:
        """Quantizes; in training mode also computes the loss and updates the codebook.

        Args:
            features_BTD: encoder output, any float dtype, ``[B, T, D]``.
            mask_BT: 1 for valid frames, ``[B, T]``; None if all are. Padded frames get codes too but teach nothing.
            codes_BT: codes to use in place of the search, ``[B, T]``; they cause neither loss nor update.
            example_ids_B: place of each clip in the update, int64 ``[B]``, for restarts of a deferred update.

        Raises:
            ValueError: if an update with restarts is deferred and ``example_ids_B`` is None.
        """
        if codes_BT is not None:
            return CodebookOutput(self.lookup(codes_BT).to(features_BTD.dtype), codes_BT)
        codes_BT = self.encode(features_BTD)
        entries_BTD = F.embedding(codes_BT, self.weight)
        error_BT = (features_BTD.detach().float() - entries_BTD.detach()).square().mean(dim=-1)
        if not self.training:
            return CodebookOutput(entries_BTD.to(features_BTD.dtype), codes_BT, squared_error=error_BT)
        with torch.autocast(features_BTD.device.type, enabled=False):
            output = self._learn(features_BTD, entries_BTD, codes_BT, mask_BT, example_ids_B)
        output.squared_error = error_BT
        return output

    # ---------------------------------------------------------------- training

    def _learn(
        self,
        features_BTD: Tensor,
        entries_BTD: Tensor,
        codes_BT: Tensor,
        mask_BT: Tensor | None,
        example_ids_B: Tensor | None,
    ) -> CodebookOutput:
        # Padded frames are left out, not set to zero: zeros would be features like any others and draw entries.
        valid_BT = torch.ones_like(codes_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        features_ND, entries_ND = features_BTD[valid_BT].float(), entries_BTD[valid_BT].float()
        codes_N = codes_BT[valid_BT]
        loss = self._loss(features_ND, entries_ND)
        # Straight-through estimator: value of the entry, gradient of the input.
        quantized_BTD = features_BTD + (entries_BTD.to(features_BTD.dtype) - features_BTD).detach()
        if self.deferred:
            self._gather(features_ND.detach(), codes_N, valid_BT, example_ids_B)
            return CodebookOutput(quantized_BTD, codes_BT, loss)
        self._remember(codes_N)
        # float32 counts exactly up to 2^24, far more frames than an update has.
        counts_V = torch.bincount(codes_N, minlength=self.codebook_size).float()
        sum_over_ranks(counts_V)
        num_restarted = 0
        if self.moves_by_averages:
            num_restarted = self._update(features_ND.detach(), codes_N, counts_V)
        perplexity, num_active = perplexity_of(counts_V), (counts_V > 0).sum()
        return CodebookOutput(quantized_BTD, codes_BT, loss, perplexity, num_active, num_restarted)

    @property
    def moves_by_averages(self) -> bool:
        """Whether an update moves the entries, other than by gradient."""
        return self.ema_decay is not None and not self.frozen

    def _loss(self, features_ND: Tensor, entries_ND: Tensor) -> Tensor:
        if not len(features_ND):
            return features_ND.sum() * 0  # a batch of padding alone: no frames, no mean
        loss = self.commit_coefficient * F.mse_loss(features_ND, entries_ND.detach())
        if self.ema_decay is None:
            loss = loss + F.mse_loss(entries_ND, features_ND.detach())
        return self.loss_scale * loss

    @torch.no_grad()
    def _update(self, features_ND: Tensor, codes_N: Tensor, counts_V: Tensor) -> int:
        """One update from one pass per process; returns how many rows were restarted."""
        sums_VD = torch.zeros_like(self.ema_weight).index_add_(0, codes_N, features_ND.to(self.ema_weight.dtype))
        sum_over_ranks(sums_VD)
        self._move_entries(counts_V, sums_VD)
        return self._restart(features_ND)

    def _move_entries(self, counts_V: Tensor, sums_VD: Tensor) -> None:
        """Moves entries to the running mean of their frames."""
        assert self.ema_decay is not None
        self.ema_count.mul_(self.ema_decay).add_(counts_V, alpha=1 - self.ema_decay)
        total = self.ema_count.sum()
        # Laplace smoothing: a little for every entry, so that none divides by zero, then scaled to the same total.
        smoothed = self.ema_count if self.keeps_smoothed_counts else self.ema_count.clone()
        smoothed.add_(COUNT_EPSILON).div_(total + self.codebook_size * COUNT_EPSILON).mul_(total)
        self.ema_weight.mul_(self.ema_decay).add_(sums_VD, alpha=1 - self.ema_decay)
        self.weight.copy_(self.ema_weight / smoothed.unsqueeze(1))
        self.num_updates += 1

    def _dead_rows(self) -> Tensor:
        """Rows hardly used since the last restart, ``[M]``, same on all ranks; none if no restart is due."""
        if self.ema_decay is None or not self.restart_interval or int(self.num_updates) % self.restart_interval:
            return self.num_updates.new_zeros(0)
        # What is left of a new row's count of one after all the updates between two restarts, if none brought a frame.
        least = self.ema_decay**self.restart_interval if self.restart_below is None else self.restart_below
        return (self.ema_count < least).nonzero().squeeze(1)

    def _restart(self, features_ND: Tensor) -> int:
        """Replaces dead rows by frames of this batch."""
        dead_M = self._dead_rows()
        if not len(dead_M):
            return 0
        first, last = self._owned_rows()
        owned_M = (dead_M >= first) & (dead_M < last)
        # One more column says which rows were found: a rank whose batch is all padding has none to give.
        proposal_MD1 = features_ND.new_zeros(len(dead_M), self.dim + 1)
        if len(features_ND):
            # Python's generator and `choices`, so that a seeded run draws the rows the reference draws.
            picks = random.choices(range(len(features_ND)), k=int(owned_M.sum()))
            proposal_MD1[owned_M, :-1] = features_ND[picks]
            proposal_MD1[owned_M, -1] = 1
        # A row has one owner and zeros from all others, so the sum is the owner's proposal.
        sum_over_ranks(proposal_MD1)
        found_M = proposal_MD1[:, -1] > 0
        return self._replace_rows(dead_M[found_M], proposal_MD1[found_M, :-1])

    def _replace_rows(self, rows_M: Tensor, values_MD: Tensor) -> int:
        # As if seen that often: with its old count the average would leave the new place at once.
        count = 1.0 if self.restart_below is None else self.restart_below
        self.ema_count[rows_M] = count
        self.ema_weight[rows_M] = count * values_MD.to(self.ema_weight.dtype)
        self.weight[rows_M] = values_MD.to(self.weight.dtype)
        logger.debug("restarted %d of %d codebook rows", len(rows_M), self.codebook_size)
        return len(rows_M)

    def _owned_rows(self) -> tuple[int, int]:
        """Range of rows that this process restarts; the last process takes the remainder."""
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
        share = self.codebook_size // world_size
        last = self.codebook_size if rank == world_size - 1 else (rank + 1) * share
        return rank * share, last

    # --------------------------------------------------------- deferred updates

    @torch.no_grad()
    def _gather(self, features_ND: Tensor, codes_N: Tensor, valid_BT: Tensor, example_ids_B: Tensor | None) -> None:
        if self._deferred_update is None:
            self._deferred_update = DeferredUpdate(self.codebook_size, self.dim, features_ND.device)
        keys_N = None
        number = int(self.num_updates) + 1  # of the update that this pass belongs to, as it counts itself when applied
        if self.moves_by_averages and self.restart_interval and number % self.restart_interval == 0:
            if example_ids_B is None:
                raise ValueError(
                    "a deferred update of the codebook restarts rows by drawing frames; give forward example_ids, the "
                    "place of each clip in the update"
                )
            keys_N = frame_keys(number, example_ids_B.to(codes_N.device), valid_BT.shape[1])[valid_BT]
        self._deferred_update.add(features_ND, codes_N, keys_N)

    @torch.no_grad()
    def apply_update(self) -> CodebookUpdate:
        """Does one update of all that passes gathered since the last, on all processes together, and forgets it.

        Every process must call it once per update, also one that had no clip. With a codebook trained by gradient, only
        the statistics are made. An update without any frame changes nothing.
        """
        update, self._deferred_update = self._deferred_update, None
        if update is None:
            update = DeferredUpdate(self.codebook_size, self.dim, self.weight.device)
        # Also without any frame here: a sum that one process leaves out waits for it forever.
        sum_over_ranks(update.counts_V)
        sum_over_ranks(update.sums_VD)
        counts_V = update.counts_V
        num_frames, num_restarted = int(counts_V.sum()), 0
        if num_frames == 0:
            return CodebookUpdate(perplexity=0.0, num_active=0, num_restarted=0)
        self._remember_counts(counts_V.long())
        if self.moves_by_averages:
            self._move_entries(counts_V, update.sums_VD)
            dead_M = self._dead_rows()
            if len(dead_M):
                frames_MD = update.drawn_frames(len(dead_M))
                num_restarted = self._replace_rows(dead_M[: len(frames_MD)], frames_MD)
        return CodebookUpdate(float(perplexity_of(counts_V)), int((counts_V > 0).sum()), num_restarted, num_frames)

    def discard_update(self) -> None:
        """Forgets what passes gathered since the last update, for a step that is given up."""
        self._deferred_update = None

    @torch.no_grad()
    def reset_statistics(self) -> None:
        """Makes the moving averages agree with ``weight``: every entry seen once, nothing remembered."""
        if self.ema_decay is not None:
            self.ema_count.fill_(1)
            self.ema_weight.copy_(self.weight)
        self.recent_codes.zero_()
        self.num_updates.zero_()


def first_largest(scores_NV: Tensor) -> Tensor:
    """The place of each row's largest value, the first of equal ones, as ``argmax(dim=-1)`` gives it; int64 ``[N]``.

    On a processor `argmax` compares one number at a time, the largest value alone is found many at a time: so the
    first group that holds the largest is looked for, and only in that group its place.
    """
    if scores_NV.device.type != "cpu" or scores_NV.shape[1] % SCORE_GROUP:
        return scores_NV.argmax(dim=-1)
    groups_NGS = scores_NV.unflatten(-1, (-1, SCORE_GROUP))
    group_N = groups_NGS.amax(dim=-1).argmax(dim=-1)
    rows_N = torch.arange(len(group_N))
    return group_N * SCORE_GROUP + groups_NGS[rows_N, group_N].argmax(dim=-1)


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Raises ValueError if ``codes`` is not an integer tensor with values in [0, codebook_size)."""
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"codes are {codes.dtype}; pass int64 codes")
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= codebook_size):
        raise ValueError(
            f"codes range from {int(codes.min())} to {int(codes.max())}, but the codebook has {codebook_size} "
            f"entries; use codes in [0, {codebook_size})"
        )
