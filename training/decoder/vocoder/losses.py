"""Losses of the vocoder: distance of spectrograms, fundamental frequency, and the game against discriminators."""
# Shapes: B segments, N samples, M mel frames, F frequency bins, T spectrogram frames.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiollm.tokenizer.signal.mel import slaney_mel_filters

from .discriminators import Judgement

MAGNITUDE_FLOOR = 1e-5  # below what 16-bit recordings hold: differences in silence do not count
POWER_OFFSET = 1e-9  # keeps the gradient of the square root finite in silence


class SpectralDistance(nn.Module):
    """Mean distance of log-mel spectrograms of several resolutions, each reaching up to half the sample rate.

    Multi-resolution STFT losses, Yamamoto et al., 2020 (arXiv:1910.11480), on mel bands: as many of them as the window
    can tell apart, so that short windows see when something happens and long ones at what pitch.

    Args:
        sample_rate: Hz.
        resolutions: window lengths in samples; the hop is a quarter of each.
        convergence: weight of the distance of the linear magnitudes, in which loud parts count most.
    """

    def __init__(self, sample_rate: int, resolutions: Sequence[int], convergence: float = 0.0) -> None:
        super().__init__()
        self.resolutions = tuple(resolutions)
        self.convergence = convergence
        for n_fft in self.resolutions:
            # 80 for a window of 1024, as usual for speech, and others in proportion.
            num_mels = max(8, n_fft * 80 // 1024)
            filters_MF = slaney_mel_filters(n_fft, num_mels, sample_rate, 0.0, sample_rate / 2)
            self.register_buffer(f"filters_{n_fft}", filters_MF, persistent=False)
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, made_BN: Tensor, recorded_BN: Tensor) -> Tensor:
        """Compares waveforms ``[B, N]``; returns a scalar, in nats per mel band."""
        total = made_BN.new_zeros(())
        for n_fft in self.resolutions:
            made_BMT, made_BFT = self._bands(made_BN, n_fft)
            with torch.no_grad():  # nothing is learned of a recording: no gradient goes back through its transform
                recorded_BMT, recorded_BFT = self._bands(recorded_BN, n_fft)
            total = total + (made_BMT - recorded_BMT).abs().mean()
            if self.convergence:
                distance_B = torch.linalg.vector_norm(made_BFT - recorded_BFT, dim=(1, 2))
                # A silent segment has no size to be relative to.
                size_B = torch.linalg.vector_norm(recorded_BFT, dim=(1, 2)).clamp(min=1e-3)
                total = total + self.convergence * (distance_B / size_B).mean()
        return total / len(self.resolutions)

    def _bands(self, waveforms_BN: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
        """Logarithms of the mel bands ``[B, M, T]`` and linear magnitudes ``[B, F, T]``."""
        # float32: half precision has neither an FFT on every device nor the range of squared magnitudes.
        spectrum = torch.stft(
            waveforms_BN.float(), n_fft, n_fft // 4, window=self.get_buffer(f"window_{n_fft}"), return_complex=True
        )
        magnitude_BFT = (torch.view_as_real(spectrum).square().sum(dim=-1) + POWER_OFFSET).sqrt()
        bands_BMT = torch.matmul(self.get_buffer(f"filters_{n_fft}"), magnitude_BFT)
        return bands_BMT.clamp(min=MAGNITUDE_FLOOR).log(), magnitude_BFT


def f0_loss(predicted_BM: Tensor, target_BM: Tensor) -> Tensor:
    """Mean absolute error of the fundamental frequency, in Hz; unvoiced frames have a target of 0."""
    # Over unvoiced frames too, in Hz and not in octaves: it is by predictions near 0 that frames count as unvoiced.
    return (predicted_BM - target_BM).abs().mean()


def discriminator_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Least squares (Mao et al., 2017, arXiv:1611.04076): 1 for recordings, 0 for what was made; mean over all."""
    # float32: near 1, bfloat16 tells scores apart by hundredths only.
    losses = [
        (1 - real.score.float()).square().mean() + fake.score.float().square().mean()
        for real, fake in zip(recorded, made, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(made: Sequence[Judgement]) -> Tensor:
    """What the vocoder gets for sounding made: distance of the scores from 1."""
    return torch.stack([(1 - fake.score.float()).square().mean() for fake in made]).mean()


def feature_matching_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Distance of the discriminators' hidden features, relative to their size; no gradient to the recordings' side.

    Relative within each segment, so that the mean over segments does not depend on how they are batched.
    """
    # Clamped: features of silence may all be zero, and have no size to be relative to.
    losses = [
        ((real - fake).abs().flatten(1).mean(1) / real.abs().flatten(1).mean(1).clamp(min=1e-5)).mean()
        for one, other in zip(recorded, made, strict=True)
        for real, fake in zip((feature.detach() for feature in one.features), other.features, strict=True)
    ]
    return torch.stack(losses).mean()
