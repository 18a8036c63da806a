"""Short-time Fourier transform and its inverse as two convolutions, for rows of different lengths in one batch.

``torch.istft`` knows one length per batch and no bfloat16 neighbour; with windows as short as the vocoder's, a
convolution with the sines is also the faster form.
"""
# Shapes: B rows, N samples, F frames, C bins.

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class ShortTimeFourier:
    """Centred transform with a periodic Hann window, reflected at the ends.

    Not a module on purpose: its constants stay float32 whatever dtype the model is cast to, and are in no checkpoint.

    Raises:
        ValueError: if ``n_fft`` is odd or windows do not overlap.
    """

    def __init__(self, n_fft: int, hop_length: int) -> None:
        if n_fft % 2 or n_fft < 2 * hop_length:
            raise ValueError(f"n_fft={n_fft} must be even and at least twice hop_length={hop_length}")
        self.n_fft = n_fft
        self.hop_length = hop_length
        self._constants: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def analyze(self, waveform_BN: Tensor, num_samples_B: Tensor | None = None) -> Tensor:
        """Returns real, then imaginary parts of the N // hop_length + 1 frames, ``[B, 2 C, F]``."""
        half = self.n_fft // 2  # centred: frame f looks at half a window on either side of sample f * hop_length
        extended_BN = F.pad(waveform_BN[:, None], (half, half), mode="reflect")
        if num_samples_B is not None:
            # Reflect each row at its own end instead: sample N - 2 comes behind sample N - 1, and so on.
            index_N = torch.arange(-half, waveform_BN.shape[1] + half, device=waveform_BN.device)
            last_B1 = num_samples_B[:, None] - 1
            # Clamped far behind the end of a short row, where the reflection runs out and nobody looks any more.
            index_BN = torch.where(index_N > last_B1, 2 * last_B1 - index_N, index_N.abs()).clamp(min=0)
            extended_BN = waveform_BN.gather(1, index_BN)[:, None]
        analysis, _, _ = self._get_constants(waveform_BN.device)
        with torch.autocast(waveform_BN.device.type, enabled=False):
            return F.conv1d(extended_BN.float(), analysis, stride=self.hop_length)

    def synthesize(self, magnitude_BCF: Tensor, phase_BCF: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        """Overlaps and adds the inverse frames; returns ``[B, (F - 1) * hop_length]``.

        Args:
            magnitude_BCF: zero beyond a row's own frames, float32 ``[B, C, F]``.
            phase_BCF: radians, ``[B, C, F]``.
            num_frames_B: frames of each row; all if None.
        """
        _, synthesis, envelope = self._get_constants(magnitude_BCF.device)
        parts_BCF = torch.cat([magnitude_BCF * phase_BCF.cos(), magnitude_BCF * phase_BCF.sin()], dim=1)
        half = self.n_fft // 2
        frames = parts_BCF.new_ones(1, 1, parts_BCF.shape[-1])
        if num_frames_B is not None:
            frames = (torch.arange(parts_BCF.shape[-1], device=parts_BCF.device) < num_frames_B[:, None])[:, None]
        with torch.autocast(parts_BCF.device.type, enabled=False):
            summed = F.conv_transpose1d(parts_BCF, synthesis, stride=self.hop_length, padding=half)
            weight = F.conv_transpose1d(frames.float(), envelope, stride=self.hop_length, padding=half)
        # Where no frame reaches, both are zero: what comes out is silence, not NaN.
        return (summed / weight.clamp(min=1e-11))[:, 0]

    def _get_constants(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device not in self._constants:
            bins = self.n_fft // 2 + 1
            sample_S = torch.arange(self.n_fft, dtype=torch.float64)
            window_S = torch.hann_window(self.n_fft, dtype=torch.float64)
            angle_CS = torch.arange(bins)[:, None] * sample_S * (2 * math.pi / self.n_fft)
            waves = torch.cat([angle_CS.cos(), -angle_CS.sin()])
            # All bins but the first and the last stand for two: themselves and their mirror image.
            share = torch.full((bins, 1), 2 / self.n_fft, dtype=torch.float64)
            share[0] = share[-1] = 1 / self.n_fft
            constants = (waves * window_S, waves * window_S * share.repeat(2, 1), window_S.square()[None])
            analysis, synthesis, envelope = (part[:, None].float().to(device) for part in constants)
            self._constants[device] = (analysis, synthesis, envelope)
        return self._constants[device]
