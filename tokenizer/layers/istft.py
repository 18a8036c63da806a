"""Features to waveforms by an inverse short-time Fourier transform (Vocos: Siuzdak, 2023, arXiv:2306.00814)."""
# Shapes: B clips, T frames, N samples, C feature size, F bins, S samples of a window.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_MAGNITUDE = 100.0  # what the exponential of a wild log-magnitude is cut to
PADDINGS = ("same", "center")


class InverseSTFTHead(nn.Module):
    """Reads log-magnitudes and phases out of features, and turns them into sound.

    Args:
        feature_size: C.
        n_fft: samples of a window.
        hop_length: samples from window to window.
        padding: "same": T frames make T hops; "center": T - 1, as of windows around their samples.

    Raises:
        ValueError: if windows do not overlap evenly, or for another padding.
    """

    def __init__(self, feature_size: int, n_fft: int, hop_length: int, padding: str = "same") -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ValueError(f"padding={padding!r} of the inverse transform: known are {', '.join(PADDINGS)}")
        if n_fft % 2 or (n_fft - hop_length) % 2 or n_fft < 2 * hop_length:
            raise ValueError(
                f"n_fft={n_fft} must be even, and 2 or more times hop_length={hop_length}, evenly beyond it"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = padding
        self.out = nn.Linear(feature_size, n_fft + 2)

    def forward(self, features_BTC: Tensor) -> Tensor:
        """Returns waveforms, float32 ``[B, N]``."""
        # float32 behind the layer: bfloat16 has no Fourier transform, and its phases are off by hundredths.
        log_magnitude_BTF, phase_BTF = self.out(features_BTC).float().chunk(2, dim=-1)
        with torch.autocast(features_BTC.device.type, enabled=False):
            magnitude_BTF = log_magnitude_BTF.exp().clamp(max=LARGEST_MAGNITUDE)
            return self.synthesize(torch.polar(magnitude_BTF, phase_BTF))

    def synthesize(self, spectrum_BTF: Tensor) -> Tensor:
        """Overlaps and adds the inverse frames of a complex spectrum; float32 ``[B, N]``."""
        window_S = self.window(spectrum_BTF.device)
        frames_BTS = torch.fft.irfft(spectrum_BTF, self.n_fft, dim=-1) * window_S
        # `torch.istft` refuses "same", whose first and last samples few windows reach.
        weight_N = self._overlap_add(window_S.square().expand(1, frames_BTS.shape[1], -1))
        cut = (self.n_fft - self.hop_length) // 2 if self.padding == "same" else self.n_fft // 2
        summed_BN = self._overlap_add(frames_BTS) / weight_N.clamp(min=1e-11)
        return summed_BN[:, cut : summed_BN.shape[1] - cut]

    def window(self, device: torch.device | None = None) -> Tensor:
        """The periodic Hann window ``[S]``; always float32, and in no checkpoint of ours."""
        return torch.hann_window(self.n_fft, device=device)

    def _overlap_add(self, frames_BTS: Tensor) -> Tensor:
        num_samples = (frames_BTS.shape[1] - 1) * self.hop_length + self.n_fft
        stride, kernel = (1, self.hop_length), (1, self.n_fft)
        summed = F.fold(frames_BTS.transpose(1, 2), output_size=(1, num_samples), kernel_size=kernel, stride=stride)
        return summed[:, 0, 0]
