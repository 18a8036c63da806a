"""The acoustic side: patches of a log-mel spectrogram, one per token, each a single layer."""
# Shapes: B clips, N samples, M mel bins, F mel frames, T tokens, E feature size.

from __future__ import annotations

from torch import Tensor, nn

from .configuration import PATCH_FRAMES, LoSATokConfig
from .front_ends import FrontEnd, log_magnitudes


class AcousticEncoder(nn.Module):
    """What was heard, as it sounds: no layer looks beyond its own token."""

    def __init__(self, config: LoSATokConfig) -> None:
        super().__init__()
        self.front_end = FrontEnd(config.mel_n_fft, config.num_mels, power=1)
        patch = (config.num_mels, PATCH_FRAMES)
        self.patch = nn.Conv2d(1, config.feature_size, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(config.feature_size)

    def log_mel(self, extended_BN: Tensor) -> Tensor:
        """Returns the log-mel, float32 ``[B, M, F]``, of samples with margins."""
        return log_magnitudes(self.front_end(extended_BN))

    def forward(self, log_mel_BMF: Tensor) -> Tensor:
        """Returns features ``[B, T, E]``; mel frames that fill no patch are dropped."""
        patches_BET = self.patch(log_mel_BMF[:, None].to(self.patch.weight.dtype))[:, :, 0]
        features_BTE: Tensor = self.norm(patches_BET.transpose(1, 2))
        return features_BTE
