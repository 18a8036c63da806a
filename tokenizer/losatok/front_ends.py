"""Mel spectrograms as LoSATok and its teacher hear them: centred windows, HTK's mel scale, bands of equal height."""
# Shapes: B clips, N samples, F frequency bins, M mel bins, T mel frames.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from .configuration import HOP_LENGTH, MARGIN, SAMPLE_RATE, TOKEN_SAMPLES, count_tokens, piece_samples

POWER_FLOOR, LARGEST_RANGE = 1e-10, 120.0  # of the teacher's decibels
MAGNITUDE_FLOOR = 1e-7
MAX_FREQUENCY = SAMPLE_RATE / 2


def extend(waveform_N: Tensor) -> Tensor:
    """Reflects a clip at both ends by `MARGIN`, so that it can be cut into pieces anywhere; ``[..., N]``.

    Silence is put behind what is too short to be reflected.
    """
    short = waveform_N.shape[-1] <= MARGIN
    filled_N = F.pad(waveform_N, (0, TOKEN_SAMPLES - waveform_N.shape[-1])) if short else waveform_N
    rows = filled_N.reshape(-1, 1, filled_N.shape[-1])
    return F.pad(rows, (MARGIN, MARGIN), mode="reflect").reshape(*waveform_N.shape[:-1], -1)


def cut_pieces(extended_N: Tensor, num_samples: int, piece_tokens: int) -> list[Tensor]:
    """Cuts what `extend` gave into pieces of at most so many tokens, each with its margins; views, not copies."""
    num_tokens = count_tokens(num_samples)
    starts = range(0, num_tokens, piece_tokens)
    sizes = [min(piece_tokens, num_tokens - start) for start in starts]
    return [
        extended_N[..., start * TOKEN_SAMPLES : start * TOKEN_SAMPLES + piece_samples(size)]
        for start, size in zip(starts, sizes, strict=True)
    ]


class FrontEnd(nn.Module):
    """Mel bands of pieces with margins.

    Window and bands stay float32 whatever dtype the model is cast to: quiet cells are small differences.

    Args:
        n_fft: window in samples.
        num_mels: M.
        power: of the magnitudes, 1 or 2.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, n_fft: int, num_mels: int, power: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.power = power
        filters_FM = mel_filter_bank(n_fft // 2 + 1, num_mels, 0.0, MAX_FREQUENCY, SAMPLE_RATE, None, "htk")
        self.register_buffer("window", torch.hann_window(n_fft))
        self.register_buffer("filters", torch.tensor(filters_FM, dtype=torch.float32))

    def forward(self, extended_BN: Tensor) -> Tensor:
        """Returns bands, float32 ``[B, M, T]``, of samples ``[B, N]`` with `MARGIN` on either side."""
        unseen = MARGIN - self.n_fft // 2
        seen_BN = extended_BN.float()[:, unseen : extended_BN.shape[1] - unseen]
        with torch.autocast(extended_BN.device.type, enabled=False):
            spectrum_BFT = torch.stft(
                seen_BN, self.n_fft, HOP_LENGTH, window=self.window, center=False, return_complex=True
            )
            magnitude_BFT = spectrum_BFT.abs()
            return torch.matmul(self.filters.T, magnitude_BFT.square() if self.power == 2 else magnitude_BFT)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> FrontEnd:
        exact = {name: one for name, one in self._buffers.items() if one is not None}
        super()._apply(fn, recurse)
        for name, one in exact.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != torch.float32:
                self._buffers[name] = one.to(moved.device)
        return self


def log_magnitudes(bands_BMT: Tensor) -> Tensor:
    """Natural logarithm of the acoustic front end's bands."""
    return bands_BMT.clamp(min=MAGNITUDE_FLOOR).log()


def decibels(bands_BMT: Tensor) -> Tensor:
    """Of the teacher's bands, not yet lifted to the range below the loudest cell."""
    return 10 * bands_BMT.clamp(min=POWER_FLOOR).log10()


def within_range(decibels_BMT: Tensor, loudest_B: Tensor) -> Tensor:
    """Lifts everything to at most 120 dB below the loudest cell of its clip.

    Of its clip, where the reference takes the loudest of the whole batch: a neighbour must not matter.
    """
    return torch.maximum(decibels_BMT, (loudest_B - LARGEST_RANGE)[:, None, None])
