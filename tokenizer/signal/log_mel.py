"""Whisper's log-mel spectrogram in torch: batched, on any device, each row as if it were alone.

Equal to ``transformers.WhisperFeatureExtractor`` up to float32 rounding.
"""
# Shapes: B clips, N samples, T mel frames, F frequency bins, M mel bins.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.configuration import HOP_LENGTH, SAMPLE_RATE

from .mel import slaney_mel_filters

N_FFT = 400  # samples: 25 ms
MAX_FREQUENCY = 8000.0  # Hz
POWER_FLOOR = 1e-10  # makes the logarithm of silence -10
DYNAMIC_RANGE = 8.0  # powers of ten below the loudest cell of the clip


class LogMelFeatures:
    """Computes log-mel features ``[B, M, T]`` from 16 kHz waveforms ``[B, N]``.

    Not a module on purpose: its two constants stay float32 whatever dtype the model is cast to, and are in no
    checkpoint.

    Args:
        num_mel_bins: M; 80 up to Whisper-large-v2, 128 from large-v3 on.
    """

    def __init__(self, num_mel_bins: int) -> None:
        self.num_mel_bins = num_mel_bins
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, waveforms_BN: Tensor, num_samples: list[int] | None = None) -> Tensor:
        """Computes the features of a padded batch; what lies beyond a row's own length has no influence on it.

        Args:
            waveforms_BN: float32, zero beyond each row's own length, ``[B, N]``; N a multiple of 160 and above 200.
            num_samples: own length of each row, padding to its multiple of the token stride included;
                all N if None. Features beyond it are zero.

        Returns:
            float32 features, ``[B, M, N / 160]``.
        """
        num_columns = waveforms_BN.shape[1]
        if num_samples is not None and all(length == num_columns for length in num_samples):
            num_samples = None
        # Whisper drops the last frame, which is centred on the sample behind the end.
        log_BMT = self.logarithms(reflect_ends(waveforms_BN, num_samples)[:, :-HOP_LENGTH])
        if num_samples is None:
            return compress_range(log_BMT)
        num_frames_B = torch.tensor(num_samples, device=log_BMT.device) // HOP_LENGTH
        is_valid_B1T = (torch.arange(log_BMT.shape[-1], device=log_BMT.device) < num_frames_B[:, None])[:, None]
        # The floor is the least value there is, so it never becomes a row's maximum.
        log_BMT = log_BMT.masked_fill(~is_valid_B1T, -10.0)
        return compress_range(log_BMT).masked_fill(~is_valid_B1T, 0.0)

    def logarithms(self, extended_BN: Tensor) -> Tensor:
        """Computes the logarithm of the mel spectrum, not yet limited in range.

        Args:
            extended_BN: waveforms as `reflect_ends` extends them, float32, or a part of them that begins at a frame;
                ``[B, N]``, 400 samples or more.

        Returns:
            log10 of the power, float32, ``[B, M, T]`` with T = (N - 400) // 160 + 1.
        """
        window, mel_filters_MF = self._get_constants(extended_BN.device)
        spectrum_BFT = torch.stft(extended_BN, N_FFT, HOP_LENGTH, window=window, center=False, return_complex=True)
        # Squares of both parts instead of abs(), whose root would only be squared again.
        power_BFT2 = torch.view_as_real(spectrum_BFT).square()
        power_BFT = power_BFT2[..., 0] + power_BFT2[..., 1]
        return (mel_filters_MF @ power_BFT).clamp_(min=POWER_FLOOR).log10_()

    def _get_constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            filters_MF = slaney_mel_filters(N_FFT, self.num_mel_bins, SAMPLE_RATE, 0.0, MAX_FREQUENCY)
            self._constants[device] = (torch.hann_window(N_FFT, device=device), filters_MF.to(device))
        return self._constants[device]


def compress_range(log_BMT: Tensor, loudest_B11: Tensor | None = None) -> Tensor:
    """Lifts everything to at most 8 powers of ten below the row's maximum, and scales to about [-1, 1].

    Args:
        log_BMT: logarithms of each row, ``[B, M, T]``.
        loudest_B11: the maximum of the clip that each row is a part of, ``[B, 1, 1]``; None: the row is the clip.
    """
    # The maximum of each row, not of the batch: a loud neighbour must not lift the floor.
    loudest_B11 = log_BMT.amax(dim=(1, 2), keepdim=True) if loudest_B11 is None else loudest_B11
    floor_B11 = loudest_B11 - DYNAMIC_RANGE
    return (torch.maximum(log_BMT, floor_B11) + 4.0) / 4.0


def reflect_ends(waveforms_BN: Tensor, num_samples: list[int] | None) -> Tensor:
    """Adds half a window on either side of each row by reflection at the row's own ends, ``[B, N + 400]``."""
    half = N_FFT // 2
    extended_BN = F.pad(waveforms_BN[:, None], (half, half), mode="reflect")[:, 0]
    # Shorter rows were reflected at the end of the padding; their own end gets its reflection here.
    for row, length in enumerate(num_samples or []):
        tail = waveforms_BN[row, length - half - 1 : length - 1].flip(0)
        extended_BN[row, half + length : half + length + half] = tail
    return extended_BN
