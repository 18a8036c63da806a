"""The length regulator: encoded codes stretched to mel frames by nearest neighbour, then smoothed by convolutions."""
# Shapes: B rows, T codes, M mel frames, C channels.

from __future__ import annotations

import torch
from torch import Tensor, nn

from .masking import FrameMask, MaskedGroupNorm, hide


def nearest_codes(num_codes: Tensor, num_frames: Tensor, width: int) -> Tensor:
    """Finds the code under each frame, rounding as ``interpolate(mode="nearest")`` does (in float32).

    Args:
        num_codes: codes per row, int64 ``[B]``.
        num_frames: frames per row, int64 ``[B]``.
        width: frames of the result; those behind ``num_frames`` repeat the last code.

    Returns:
        Indices int64 ``[B, width]``.
    """
    # float32: where a code's border falls on a frame, rounding decides, and interpolate rounds so.
    codes_per_frame = num_codes.float() / num_frames.clamp(min=1).float()
    frames = torch.arange(width, device=num_codes.device, dtype=torch.float32)
    indices = (frames * codes_per_frame[:, None]).long()
    # Behind a row's frames the product runs past its last code; rounding may do so on the last frame.
    return torch.minimum(indices, (num_codes - 1)[:, None])


class LengthRegulator(nn.Module):
    """Nearest-neighbour stretching, ``num_convolutions`` of (convolution, group norm, Mish), and a 1x1 convolution."""

    def __init__(self, channels: int, num_convolutions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_convolutions):
            layers += [nn.Conv1d(channels, channels, 3, padding=1), MaskedGroupNorm(1, channels), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(channels, channels, 1))

    def forward(self, encoded_BTC: Tensor, codes_of_frames: Tensor, mask: FrameMask | None) -> Tensor:
        """Stretches and smooths.

        Args:
            encoded_BTC: projected encoder output ``[B, T, C]``.
            codes_of_frames: from `nearest_codes`, int64 ``[B, M]``.
            mask: valid frames; None: all.

        Returns:
            ``[B, C, M]``, 0 at padded frames.
        """
        index = codes_of_frames[:, :, None].expand(-1, -1, encoded_BTC.shape[2])
        x_BCM = encoded_BTC.gather(1, index).transpose(1, 2)
        hides = mask is not None and mask.padding == "hidden"
        for layer in self.model:
            if isinstance(layer, MaskedGroupNorm):
                x_BCM = layer(x_BCM, mask)
            else:
                x_BCM = layer(hide(x_BCM, mask) if hides and isinstance(layer, nn.Conv1d) else x_BCM)
        return hide(x_BCM, mask)
