"""Sizes of a LoSATok; the defaults are those of the released checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from audiollm.tokenizer.configuration import require_positive
from audiollm.tokenizer.zoo.settings import require_few

SAMPLE_RATE = 16000
"""Hz, of what it hears and of what it makes."""
HOP_LENGTH = 160
"""Samples from one mel frame to the next, of both front ends."""
PATCH_FRAMES = 4
"""Mel frames of a token."""
TOKEN_SAMPLES = HOP_LENGTH * PATCH_FRAMES
MARGIN = 512
"""Samples that the front ends look beyond a piece on either side: half the longest window."""
PIECE_TOKENS = 252
"""Most tokens that a teacher looks at together: 10.08 s."""
LARGEST_LOG_VARIANCE = 20.0


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    """Sizes of the semantic side."""

    feature_size: int = 1280
    """Of the teacher's features."""
    bottleneck_size: int = 512
    """Of the layer between them and the latents, both ways."""
    latent_size: int = 128

    def __post_init__(self) -> None:
        require_positive(self, "feature_size", "bottleneck_size", "latent_size")


@dataclass(frozen=True, kw_only=True)
class LoSATokConfig(SemanticConfig):
    """Everything that makes the model, but for its teacher."""

    num_mels: int = 128
    """Bins of the acoustic front end."""
    mel_n_fft: int = 1024
    """Its window in samples."""
    decoder_size: int = 1280
    decoder_intermediate_size: int = 5120
    decoder_layers: int = 12
    """ConvNeXt blocks."""
    n_fft: int = 1280
    """Window of the decoder's inverse transform, in samples."""
    upsampling: int = 2
    """Frames of the decoder for each token."""
    encoder_only: bool = False
    """Whether there is no decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "num_mels", "mel_n_fft", "decoder_size", "decoder_intermediate_size", "decoder_layers", "n_fft",
            "upsampling",
        )  # fmt: skip
        require_few(self, "decoder_layers")
        if TOKEN_SAMPLES % self.upsampling:
            raise ValueError(f"upsampling={self.upsampling} does not divide the {TOKEN_SAMPLES} samples of a token")
        if self.mel_n_fft > 2 * MARGIN or self.mel_n_fft % 2:
            raise ValueError(f"mel_n_fft={self.mel_n_fft}: use an even number up to {2 * MARGIN}")

    @property
    def semantic(self) -> SemanticConfig:
        """Of the semantic side."""
        return SemanticConfig(
            feature_size=self.feature_size, bottleneck_size=self.bottleneck_size, latent_size=self.latent_size
        )

    @property
    def decoder_hop(self) -> int:
        """Samples from frame to frame of the decoder."""
        return TOKEN_SAMPLES // self.upsampling


def count_tokens(num_samples: int) -> int:
    """Tokens of a clip at `SAMPLE_RATE`: whole patches of centred mel frames; the least clip has one.

    A last piece of one to three mel frames is dropped; from 480 samples beyond a token on, it is a token.
    """
    if not num_samples:
        return 0
    return max(1, (num_samples // HOP_LENGTH + 1) // PATCH_FRAMES)


def piece_samples(num_tokens: int) -> int:
    """Samples that the front ends need for so many tokens, `MARGIN` on either side included."""
    return (num_tokens * PATCH_FRAMES - 1) * HOP_LENGTH + 2 * MARGIN
