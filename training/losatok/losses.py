"""How far a LoSATok's sound is from the recording, and its game against discriminators."""
# Shapes: B segments, N samples, M mel bins, T frames.

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiollm.tokenizer.signal.mel import slaney_mel_filters
from audiollm.training.decoder.vocoder.discriminators import Judgement

MEL_FLOOR = 1e-5
POWER_OFFSET = 1e-9  # keeps the gradient of the square root finite in silence
SAMPLES_PER_MEL = 6.4  # 5 bins for a window of 32 samples, 320 for one of 2048


class MultiScaleMelLoss(nn.Module):
    """Distance of log-mel spectrograms, summed over resolutions.

    As in DAC (Kumar et al., 2023, arXiv:2306.06546): decimal logarithms of magnitudes, hops of a quarter of the window,
    bands up to half the sample rate.

    Args:
        sample_rate: Hz.
        windows: window lengths in samples.
    """

    def __init__(self, sample_rate: int, windows: Sequence[int]) -> None:
        super().__init__()
        self.windows = tuple(windows)
        for n_fft in self.windows:
            with warnings.catch_warnings():  # the lowest bands may lie between two bins: they are silent in both
                warnings.simplefilter("ignore", UserWarning)
                num_mels = round(n_fft / SAMPLES_PER_MEL)
                filters_MF = slaney_mel_filters(n_fft, num_mels, sample_rate, 0.0, sample_rate / 2)
            self.register_buffer(f"filters_{n_fft}", filters_MF, persistent=False)
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, made_BN: Tensor, recorded_BN: Tensor) -> Tensor:
        """Compares waveforms ``[B, N]``; returns a scalar."""
        total = made_BN.new_zeros((), dtype=torch.float32)
        both = torch.cat([made_BN, recorded_BN]).float()
        for n_fft in self.windows:
            window, filters_MF = self.get_buffer(f"window_{n_fft}"), self.get_buffer(f"filters_{n_fft}")
            with torch.autocast(both.device.type, enabled=False):
                spectrum = torch.view_as_real(torch.stft(both, n_fft, n_fft // 4, window=window, return_complex=True))
                magnitude = (spectrum.square().sum(dim=-1) + POWER_OFFSET).sqrt()
                made_BMT, recorded_BMT = torch.matmul(filters_MF, magnitude).clamp(min=MEL_FLOOR).log10().chunk(2)
            total = total + (made_BMT - recorded_BMT).abs().mean()
        return total


def hinge_discriminator_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Above 1 for recordings, below -1 for what was made (Lim and Ye, 2017, arXiv:1705.02894); mean over all."""
    losses = [
        (1 - real.score.float()).relu().mean() + (1 + fake.score.float()).relu().mean()
        for real, fake in zip(recorded, made, strict=True)
    ]
    return torch.stack(losses).mean()


def hinge_adversarial_loss(made: Sequence[Judgement]) -> Tensor:
    """What the tokenizer gets for sounding made: the scores, lowered."""
    return -torch.stack([fake.score.float().mean() for fake in made]).mean()
