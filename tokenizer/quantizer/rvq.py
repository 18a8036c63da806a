"""Residual vector quantizer: each codebook quantizes what those before it left over.

As in SoundStream (Zeghidour et al., 2021, arXiv:2107.03312). Search, moving averages and restarts of each codebook are
those of `codebook.Codebook`.
"""
# Shapes: B clips, K codebooks, T frames, N frames of a whole batch, D feature size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .codebook import Codebook
from .deferred import CodebookUpdate
from .kmeans import CodebookFit, fit_entries


@dataclass
class ResidualOutput:
    """One pass; the loss and the perplexities are there in training only."""

    quantized: Tensor  # [B, T, D], sum of the entries, gradient of the input
    codes: Tensor  # [B, K, T] int64
    loss: Tensor | None = None  # scalar float32: mean over codebooks
    perplexities: Tensor | None = None  # [K]


class ResidualQuantizer(nn.Module):
    """K codebooks, one behind the other.

    Args:
        num_codebooks: K.
        codebook_size: V of each.
        dim: D.
        options: of each `Codebook`, such as ``ema_decay`` and ``restart_interval``.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, dim: int, **options: Any) -> None:
        super().__init__()
        self.codebooks = nn.ModuleList(Codebook(codebook_size, dim, **options) for _ in range(num_codebooks))

    def __len__(self) -> int:
        return len(self.codebooks)

    def _span(self, start: int = 0, count: int | None = None) -> list[Codebook]:
        chosen = [one for one in self.codebooks if isinstance(one, Codebook)]
        stop = len(chosen) if count is None else start + count
        if not 0 <= start < stop <= len(chosen):
            raise ValueError(f"codebooks {start} to {stop - 1} of {len(chosen)}: choose among 0 to {len(chosen) - 1}")
        return chosen[start:stop]

    @torch.no_grad()
    def encode(self, features_BTD: Tensor, *, start: int = 0, count: int | None = None) -> Tensor:
        """Finds the codes of some codebooks, the first of which quantizes the features themselves.

        Args:
            features_BTD: any float dtype, ``[B, T, D]``.
            start: first codebook.
            count: how many; None: all from there on.

        Returns:
            int64 ``[B, count, T]``.

        Raises:
            ValueError: if there are no such codebooks, or the last axis is not D.
        """
        residual_BTD = features_BTD.float()
        codes = []
        for codebook in self._span(start, count):
            codes.append(codebook.encode(residual_BTD))
            residual_BTD = residual_BTD - codebook.weight[codes[-1]]
        return torch.stack(codes, dim=1)

    def entries(self, codes_BKT: Tensor, *, start: int = 0) -> list[Tensor]:
        """The entry of each code, one ``[B, T, D]`` per codebook; the first row of codes is of codebook ``start``.

        Raises:
            ValueError: if there are no such codebooks, or a code is out of range.
        """
        chosen = self._span(start, codes_BKT.shape[1])
        return [one.lookup(codes_BKT[:, number]) for number, one in enumerate(chosen)]

    def decode(self, codes_BKT: Tensor, *, start: int = 0) -> Tensor:
        """Sums the entries of codes, ``[B, T, D]``; otherwise as `entries`."""
        first, *others = self.entries(codes_BKT, start=start)
        return sum(others, first)

    def forward(
        self, features_BTD: Tensor, mask_BT: Tensor | None = None, example_ids_B: Tensor | None = None
    ) -> ResidualOutput:
        """Quantizes; in training mode also computes the loss and updates the codebooks.

        Args:
            features_BTD: any float dtype, ``[B, T, D]``.
            mask_BT: 1 for valid frames; None if all are.
            example_ids_B: place of each clip in the update, for restarts of a deferred one.
        """
        residual_BTD = features_BTD.float()
        passes = []
        for codebook in self._span():
            passes.append(codebook(residual_BTD, mask_BT, example_ids_B=example_ids_B))
            # Not by the codes: training has moved the entries since. Detached: straight through each codebook, the
            # gradients of the features would cancel in what is left over.
            residual_BTD = residual_BTD - passes[-1].quantized.detach()
        codes_BKT = torch.stack([one.codes for one in passes], dim=1)
        if not self.training:
            return ResidualOutput(self.decode(codes_BKT).to(features_BTD.dtype), codes_BKT)
        # Straight through all codebooks at once: the sum of K straight-through terms would be K times the gradient.
        entries_BTD = (features_BTD.detach().float() - residual_BTD.detach()).to(features_BTD.dtype)
        quantized_BTD = features_BTD + (entries_BTD - features_BTD).detach()
        perplexities = [one.perplexity for one in passes if one.perplexity is not None]
        return ResidualOutput(
            quantized_BTD,
            codes_BKT,
            torch.stack([one.loss for one in passes]).mean(),
            torch.stack(perplexities) if perplexities else None,
        )

    def defer_updates(self) -> None:
        """From now on passes in training mode only gather; see `Codebook` and `apply_update`."""
        for codebook in self._span():
            codebook.deferred = True

    def apply_update(self) -> list[CodebookUpdate]:
        """Does one update of each codebook; see `Codebook.apply_update`."""
        return [codebook.apply_update() for codebook in self._span()]

    @torch.no_grad()
    def fit(self, features_ND: Tensor, **options: Any) -> Sequence[CodebookFit]:
        """Places the entries of each codebook by k-means on what those before it leave over; options: of `fit_entries`.

        Raises:
            ValueError: if there are fewer frames than entries, or features that are no numbers.
        """
        residual_ND = features_ND.float().clone()
        fits = []
        for codebook in self._span():
            fits.append(fit_entries(codebook, residual_ND, **options))
            residual_ND -= codebook.weight[codebook.encode(residual_ND)]
        return fits
