"""Residual quantizer of few dimensions: features are projected once before all codebooks, and once behind them.

The layout of vector-quantize-pytorch's ``ResidualVQ``, and its training: averages of the entries, a commitment of each
codebook, rotated gradients.
"""
# Shapes: B clips, K codebooks, T frames, D feature size, C code size, V codebook size.

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiollm.tokenizer.linear import Linear, linear

from .rvq import ResidualOutput, ResidualQuantizer

EMA_DECAY = 0.9


class ProjectedResidualQuantizer(nn.Module):
    """K codebooks of V entries ``[C]`` for features ``[D]``.

    Args:
        num_codebooks: K.
        codebook_size: V.
        code_size: C.
        dim: D.
        restart_below: averaged count of an entry, per update, below which a frame takes its place.
    """

    def __init__(
        self, num_codebooks: int, codebook_size: int, code_size: int, dim: int, *, restart_below: float = 2.0
    ) -> None:
        super().__init__()
        self.project_in = Linear(dim, code_size) if code_size != dim else nn.Identity()
        self.project_out = Linear(code_size, dim) if code_size != dim else nn.Identity()
        self.residual = ResidualQuantizer(
            num_codebooks,
            codebook_size,
            code_size,
            rotates=True,
            ema_decay=EMA_DECAY,
            restart_interval=1,
            restart_below=restart_below,
            keeps_smoothed_counts=False,
            commit_coefficient=1.0,
        )

    def __len__(self) -> int:
        return len(self.residual)

    def project(self, features_BTD: Tensor) -> Tensor:
        """What the codebooks quantize, float32 ``[B, T, C]``."""
        # Exact also under autocast: bfloat16 picks wrong entries where two are nearly as near.
        with torch.autocast(features_BTD.device.type, enabled=False):
            if not isinstance(self.project_in, nn.Linear):
                return features_BTD.float()
            return linear(features_BTD.float(), self.project_in.weight.float(), self.project_in.bias.float())

    @torch.no_grad()
    def encode(self, features_BTD: Tensor) -> Tensor:
        """Finds the codes, int64 ``[B, K, T]``."""
        return self.residual.encode(self.project(features_BTD))

    def decode(self, codes_BKT: Tensor) -> Tensor:
        """What the codes say of the features, ``[B, T, D]``; of the first codebooks alone, of these.

        Raises:
            ValueError: for a code out of range or too many codebooks.
        """
        return self._projected_out(self.residual.decode(codes_BKT))

    def forward(
        self, features_BTD: Tensor, mask_BT: Tensor | None = None, example_ids_B: Tensor | None = None
    ) -> ResidualOutput:
        """Quantizes; in training mode also learns, see `ResidualQuantizer.forward`."""
        output = self.residual(self.project(features_BTD), mask_BT, example_ids_B)
        output.quantized = self._projected_out(output.quantized)
        return output

    def _projected_out(self, entries_BTC: Tensor) -> Tensor:
        dtype = self.project_out.weight.dtype if isinstance(self.project_out, nn.Linear) else entries_BTC.dtype
        projected: Tensor = self.project_out(entries_BTC.to(dtype))
        return projected
