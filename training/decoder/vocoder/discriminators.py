"""Discriminators of the vocoder, on periods and on spectrograms: what tells recordings from what the vocoder makes.

Periods as in HiFi-GAN (Kong et al., 2020, arXiv:2010.05646), spectrograms of several resolutions as in UnivNet (Jang
et al., 2021, arXiv:2106.07889). Both see waveforms alone, so they are small and know nothing of the mel spectrogram.
"""
# Shapes: B segments, N samples, P period, F frequency bins, T frames.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

LEAKY_SLOPE = 0.1
PERIOD_STRIDE = 3
MAX_WIDENING = 16
"""The widest layer over the first."""


@dataclass(frozen=True)
class Judgement:
    """What one discriminator says of a batch.

    Attributes:
        score: one value per place; high for recordings. Any shape with B first.
        features: output of every hidden layer.
    """

    score: Tensor
    features: list[Tensor]

    def halves(self) -> tuple[Judgement, Judgement]:
        """Splits the judgement of a batch into those of its first and its second half."""
        parts = [tensor.chunk(2) for tensor in (self.score, *self.features)]
        first, second = ([part[half] for part in parts] for half in (0, 1))
        return Judgement(first[0], first[1:]), Judgement(second[0], second[1:])


class PeriodDiscriminator(nn.Module):
    """Looks at every P-th sample: the waveform folded to ``[N / P, P]``, columns seen by themselves.

    Args:
        period: P.
        channels: width of the first layer; each later one is up to four times as wide as the one before.
        num_layers: strided layers.
    """

    def __init__(self, period: int, channels: int, num_layers: int = 4) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(channels * min(4**layer, MAX_WIDENING) for layer in range(num_layers))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(narrow, wide, (5, 1), (PERIOD_STRIDE, 1), padding=(2, 0)))
            for narrow, wide in pairwise(widths)
        )
        self.output = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform_BN: Tensor) -> Judgement:
        """Judges segments ``[B, N]``."""
        missing = -waveform_BN.shape[1] % self.period
        # Mirrored, not zeros: a step at the end would tell more about the padding than about the sound.
        padded_BN = F.pad(waveform_BN[:, None], (0, missing), mode="reflect")
        # Kernels are one column wide, so that no layer mixes samples of different places in the period.
        return _judge(padded_BN.unflatten(2, (-1, self.period)), self.layers, self.output)


class SpectrogramDiscriminator(nn.Module):
    """Looks at the magnitude spectrogram of one resolution.

    Args:
        n_fft: window length in samples; the hop is a quarter of it.
        channels: width of all layers.
    """

    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        layout = [((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1))]
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(1 if index == 0 else channels, channels, size, stride, padding=(size[0] // 2, size[1] // 2))
            )
            for index, (size, stride) in enumerate(layout)
        )
        self.output = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform_BN: Tensor) -> Judgement:
        """Judges segments ``[B, N]``, which must be longer than half a window."""
        spectrum_BFT = torch.stft(
            waveform_BN.float(), self.n_fft, self.n_fft // 4, window=self.window.float(), return_complex=True
        )
        # Scaled so, loud speech has magnitudes of about 1 in every resolution.
        magnitude_BTF = spectrum_BFT.abs().transpose(1, 2) * (4 / self.n_fft**0.5)
        return _judge(magnitude_BTF[:, None], self.layers, self.output)


class Discriminators(nn.Module):
    """All discriminators of a run.

    Args:
        periods: one period discriminator each, usually primes.
        period_channels: width of their first layers.
        resolutions: window lengths in samples, one spectrogram discriminator each.
        spectrogram_channels: width of their layers.

    Raises:
        ValueError: if there is none.
    """

    def __init__(
        self, periods: Sequence[int], period_channels: int, resolutions: Sequence[int], spectrogram_channels: int
    ) -> None:
        super().__init__()
        if not periods and not resolutions:
            raise ValueError("neither periods nor resolutions are given: name at least one discriminator")
        self.discriminators = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, period_channels) for period in periods),
                *(SpectrogramDiscriminator(n_fft, spectrogram_channels) for n_fft in resolutions),
            ]
        )

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """Judges segments ``[B, N]``; one judgement per discriminator."""
        return [discriminator(waveform) for discriminator in self.discriminators]


def _judge(x: Tensor, layers: nn.ModuleList, output: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), LEAKY_SLOPE)
        features.append(x)
    return Judgement(output(x).flatten(1), features)
