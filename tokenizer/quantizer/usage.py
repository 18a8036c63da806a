"""How much of a codebook is in use: a memory of the latest codes, which every quantizer that learns keeps."""
# Shapes: N frames of a whole batch, V codebook entries.

from __future__ import annotations

import torch
from torch import Tensor, nn

from .deferred import sum_over_ranks

RECENT_CODES_PER_ENTRY = 4  # usage looks back over the last 4 V codes of each process


class RemembersCodes(nn.Module):
    """A quantizer that remembers its latest codes, in the buffer ``recent_codes`` [4 V], newest last.

    Args:
        codebook_size: V.
    """

    recent_codes: Tensor

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.register_buffer("recent_codes", torch.zeros(RECENT_CODES_PER_ENTRY * codebook_size, dtype=torch.int64))

    @torch.no_grad()
    def _remember(self, codes_N: Tensor) -> None:
        size = len(self.recent_codes)
        codes_N = codes_N[:size]  # of a longer batch the reference keeps the first, not the latest
        self.recent_codes.copy_(torch.cat([self.recent_codes[len(codes_N) :], codes_N]))

    @torch.no_grad()
    def _remember_counts(self, counts_V: Tensor) -> None:
        """Puts an update's codes into the memory; of a longer update than that holds, each code at least once."""
        codes_V = torch.arange(self.codebook_size, device=counts_V.device)
        repeated = codes_V.repeat_interleave((counts_V - 1).clamp(min=0))
        newest = torch.cat([repeated, codes_V[counts_V > 0]])[-len(self.recent_codes) :]
        self.recent_codes.copy_(torch.cat([self.recent_codes[len(newest) :], newest]))

    @torch.no_grad()
    def usage(self) -> float:
        """Share of entries among the recent codes of all processes; with a process group, call it on every rank.

        The memory starts as zeros, so code 0 counts as used until it is full.
        """
        seen_V = torch.zeros(self.codebook_size, device=self.recent_codes.device)
        seen_V[self.recent_codes] = 1
        sum_over_ranks(seen_V)
        return int((seen_V > 0).sum()) / self.codebook_size


def perplexity_of(counts_V: Tensor) -> Tensor:
    """Returns exp(entropy) of the codes counted in ``counts_V``: V if all are equally frequent, 1 if one is used."""
    probabilities_V = counts_V / counts_V.sum().clamp(min=1)
    return torch.special.entr(probabilities_V).sum().exp()  # entr(0) is 0, where p log p would be NaN
