"""The mel spectrogram between flow model and vocoder: its settings, and how it is computed of a waveform."""
# Shapes: B clips, N samples, T mel frames, F frequency bins, M mel bins.

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from audiollm.tokenizer.configuration import require_positive

POWER_OFFSET = 1e-9  # keeps the gradient of the square root finite in silence
MEL_FLOOR = 1e-5  # the log-mel of silence is its logarithm, -11.5; models have learned this very number


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """The mel spectrogram between the two models: log of a Slaney mel of the magnitude spectrum."""

    sample_rate: int = 22050
    """Hz."""
    n_fft: int = 1024
    window_length: int = 1024
    """Samples."""
    hop_length: int = 256
    """Samples from one frame to the next."""
    num_mels: int = 80
    min_frequency: float = 0.0
    """Hz."""
    max_frequency: float = 8000.0
    """Hz."""

    def __post_init__(self) -> None:
        require_positive(self, "sample_rate", "n_fft", "window_length", "hop_length", "num_mels")
        if not 0 <= self.min_frequency < self.max_frequency <= self.sample_rate / 2:
            raise ValueError(
                f"mel bands from {self.min_frequency} to {self.max_frequency} Hz do not fit into 0 to "
                f"{self.sample_rate / 2} Hz, half the sample rate"
            )

    @property
    def frame_rate(self) -> float:
        """Mel frames per second, in Hz."""
        return self.sample_rate / self.hop_length


class MelSpectrogram(nn.Module):
    """Natural logarithm of a Slaney mel of the magnitude spectrum; differentiable, and without parameters.

    Its two constants stay float32 whatever dtype a model around it is cast to, and are in no checkpoint.
    """

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        if config.window_length > config.n_fft:
            raise ValueError(f"window_length={config.window_length} is longer than n_fft={config.n_fft}")
        if config.hop_length > config.n_fft:
            raise ValueError(f"hop_length={config.hop_length} is longer than n_fft={config.n_fft}")
        self.config = config
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(self, waveform: Tensor) -> Tensor:
        """Computes the spectrogram.

        Args:
            waveform: samples in [-1, 1] at the configured sample rate, ``[B, N]`` or ``[N]``.

        Returns:
            Log-mel, float32, ``[B, M, T]`` or ``[M, T]``; T is N // hop_length when n_fft - hop_length is even.

        Raises:
            ValueError: if the waveform is too short to be reflected at its ends.
        """
        config = self.config
        # Half a window less half a hop, as HiFi-GAN pads: N samples give N // hop_length frames, each centred on its
        # hop, so that frames and samples of the vocoder line up.
        padding = (config.n_fft - config.hop_length) // 2
        if waveform.shape[-1] <= max(padding, config.hop_length - 1):
            raise ValueError(
                f"{waveform.shape[-1]} samples are too few for a spectrogram; it needs at least "
                f"{max(padding + 1, config.hop_length)}, pad the waveform with zeros"
            )
        window, filters_MF = self._get_constants(waveform.device)
        rows_BN = waveform.reshape(-1, waveform.shape[-1]).float()
        extended_BN = F.pad(rows_BN[:, None], (padding, padding), mode="reflect")[:, 0]
        with torch.autocast(waveform.device.type, enabled=False):  # quiet cells are small differences
            spectrum_BFT = torch.stft(
                extended_BN,
                config.n_fft,
                config.hop_length,
                config.window_length,
                window=window,
                center=False,
                return_complex=True,
            )
            power_BFT2 = torch.view_as_real(spectrum_BFT).square()
            magnitude_BFT = (power_BFT2[..., 0] + power_BFT2[..., 1] + POWER_OFFSET).sqrt()
            log_BMT = torch.matmul(filters_MF, magnitude_BFT).clamp(min=MEL_FLOOR).log()
        return log_BMT.reshape(*waveform.shape[:-1], *log_BMT.shape[1:])

    def _get_constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            config = self.config
            filters_MF = slaney_mel_filters(
                config.n_fft, config.num_mels, config.sample_rate, config.min_frequency, config.max_frequency
            )
            window = torch.hann_window(config.window_length, device=device)
            self._constants[device] = (window, filters_MF.to(device))
        return self._constants[device]


def slaney_mel_filters(
    n_fft: int, num_mels: int, sample_rate: int, min_frequency: float, max_frequency: float
) -> Tensor:
    """Returns triangular filters of equal area on Slaney's mel scale, float32 ``[M, n_fft / 2 + 1]``."""
    filters_FM = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=num_mels,
        min_frequency=min_frequency,
        max_frequency=max_frequency,
        sampling_rate=sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters_FM).float().t().contiguous()
