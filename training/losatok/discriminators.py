"""A multi-frequency discriminator: each band of each spectrogram has layers of its own.

Spectrograms of several resolutions cut into bands, with real and imaginary parts, as in DAC (Kumar et al., 2023,
arXiv:2306.06546): phases count, and what is quiet in high bands is not drowned by what is loud in low ones.
"""
# Shapes: B segments, N samples, T frames, F frequency bins.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiollm.training.decoder.vocoder.discriminators import LEAKY_SLOPE, Judgement

BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
"""Shares of the frequency bins."""
_LAYOUT = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))
"""Kernels and strides of a band's layers, over frames and bins."""


class BandDiscriminator(nn.Module):
    """Looks at the spectrogram of one resolution, band by band.

    Args:
        n_fft: window length in samples; the hop is a quarter of it.
        channels: width of all layers.
    """

    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        num_bins = n_fft // 2 + 1
        self.edges = [(int(low * num_bins), int(high * num_bins)) for low, high in BANDS]
        self.bands = nn.ModuleList(nn.ModuleList(_layers(channels)) for _ in BANDS)
        self.output = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveforms_BN: Tensor) -> Judgement:
        """Judges segments ``[B, N]``, which must be longer than half a window."""
        with torch.autocast(waveforms_BN.device.type, enabled=False):
            spectrum_BFT = torch.stft(
                waveforms_BN.float(), self.n_fft, self.n_fft // 4, window=self.window.float(), return_complex=True
            )
        # Scaled so, loud speech has magnitudes of about 1 in every resolution.
        parts_B2TF = torch.view_as_real(spectrum_BFT).permute(0, 3, 2, 1) * (4 / self.n_fft**0.5)
        features: list[Tensor] = []
        ends: list[Tensor] = []
        for (low, high), layers in zip(self.edges, self.bands, strict=True):
            x = parts_B2TF[..., low:high]
            for layer in layers:  # type: ignore[attr-defined]  # a list of modules is no more to mypy
                x = F.leaky_relu(layer(x), LEAKY_SLOPE)
                features.append(x)
            ends.append(x)
        return Judgement(self.output(torch.cat(ends, dim=-1)).flatten(1), features)


class MultiFrequencyDiscriminator(nn.Module):
    """One `BandDiscriminator` per resolution.

    Args:
        windows: window lengths in samples.
        channels: width of all layers.
    """

    def __init__(self, windows: Sequence[int], channels: int) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(BandDiscriminator(n_fft, channels) for n_fft in windows)

    def forward(self, waveforms: Tensor) -> list[Judgement]:
        """Judges segments ``[B, N]``; one judgement per resolution."""
        return [discriminator(waveforms) for discriminator in self.discriminators]


def _layers(channels: int) -> list[nn.Module]:
    return [
        weight_norm(
            nn.Conv2d(2 if number == 0 else channels, channels, size, stride, padding=(size[0] // 2, size[1] // 2))
        )
        for number, (size, stride) in enumerate(_LAYOUT)
    ]
