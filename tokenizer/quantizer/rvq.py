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
import torch.nn.functional as F
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
    losses: Tensor | None = None  # [K]: of each codebook
    perplexities: Tensor | None = None  # [K]


def turned_to(features_BTD: Tensor, entries_BTD: Tensor) -> Tensor:
    """The entries, made of the features by a turn and a change of length that count as constants for the gradient.

    The rotation trick of Fifty et al., 2024 (arXiv:2410.06424): unlike straight through, the angle between a feature's
    gradient and the feature stays that between the entry's and the entry.
    """
    entries_BTD, fixed_BTD = entries_BTD.detach(), features_BTD.detach()
    smallest = torch.finfo(features_BTD.dtype).tiny
    norm = fixed_BTD.norm(dim=-1, keepdim=True).clamp(min=smallest)
    length = entries_BTD.norm(dim=-1, keepdim=True)
    source, target = fixed_BTD / norm, entries_BTD / length.clamp(min=smallest)
    middle = F.normalize(source + target, dim=-1)
    along_middle = (features_BTD * middle).sum(dim=-1, keepdim=True)
    along_source = (features_BTD * source).sum(dim=-1, keepdim=True)
    return (features_BTD - 2 * along_middle * middle + 2 * along_source * target) * (length / norm)


class ResidualQuantizer(nn.Module):
    """K codebooks, one behind the other.

    Args:
        num_codebooks: K.
        codebook_size: V of each.
        dim: D.
        rotates: whether the gradient of what each codebook quantizes is turned and scaled as that was to become the
            entry, see `turned_to`; else it passes straight through.
        options: of each `Codebook`, such as ``ema_decay`` and ``restart_interval``.
    """

    def __init__(
        self, num_codebooks: int, codebook_size: int, dim: int, *, rotates: bool = False, **options: Any
    ) -> None:
        super().__init__()
        self.rotates = rotates
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
        turned_BTD = torch.zeros_like(residual_BTD)
        passes = []
        for codebook in self._span():
            passes.append(codebook(residual_BTD, mask_BT, example_ids_B=example_ids_B))
            # Not by the codes: training has moved the entries since. Detached: straight through each codebook, the
            # gradients of the features would cancel in what is left over.
            entries_BTD = passes[-1].quantized.detach()
            if self.training and self.rotates:
                turned_BTD = turned_BTD + turned_to(residual_BTD, entries_BTD)
            residual_BTD = residual_BTD - entries_BTD
        codes_BKT = torch.stack([one.codes for one in passes], dim=1)
        if not self.training:
            return ResidualOutput(self.decode(codes_BKT).to(features_BTD.dtype), codes_BKT)
        # Straight through all codebooks at once: the sum of K straight-through terms would be K times the gradient.
        entries_BTD = (features_BTD.detach().float() - residual_BTD.detach()).to(features_BTD.dtype)
        quantized_BTD = features_BTD + (entries_BTD - features_BTD).detach()
        if self.rotates:
            quantized_BTD = turned_BTD.to(features_BTD.dtype)
        losses_K = torch.stack([one.loss for one in passes])
        perplexities = [one.perplexity for one in passes if one.perplexity is not None]
        return ResidualOutput(
            quantized_BTD,
            codes_BKT,
            losses_K.mean(),
            losses_K,
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
