"""What a transformer can make in place of a LoSATok's latents, behind the same interface: mel, or features."""
# Shapes: B clips, N samples, T tokens, M mel bins, F mel frames, K frequency bins, D size of a frame.

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from audiollm.tokenizer.base import AudioTokenizer, Latents
from audiollm.tokenizer.losatok.configuration import (
    HOP_LENGTH,
    PATCH_FRAMES,
    SAMPLE_RATE,
    TOKEN_SAMPLES,
    SemanticConfig,
    count_tokens,
    piece_samples,
)
from audiollm.tokenizer.losatok.front_ends import FrontEnd, extend, log_magnitudes
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.base import Teacher
from audiollm.training.losatok.semantic_stage import high_features

N_FFT = 1024
"""Window of the mel, in samples."""
ROUNDS = 32
"""Of Griffin and Lim's search for phases."""


class Frames(AudioTokenizer):
    """Frames at the rate of a LoSATok's tokens, which no training has made."""

    sample_rate = SAMPLE_RATE
    output_sample_rate = SAMPLE_RATE
    frame_rate = SAMPLE_RATE / TOKEN_SAMPLES
    num_codebooks = 0
    codebook_size = 0
    max_segment_seconds = None
    licence_note = ""
    can_decode = False

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        return count_tokens(num_samples)

    @torch.no_grad()
    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int) -> Latents:
        """Frames of waveforms at 16 kHz, each ``[N]``."""
        made = [self.frames(one) for one in waveforms]
        return Latents(nn.utils.rnn.pad_sequence(made, batch_first=True), torch.tensor([len(one) for one in made]))

    @abstractmethod
    def frames(self, waveform: Tensor) -> Tensor:
        """``[T, D]`` of a waveform ``[N]``."""

    def decode(self, codes: Any, speaker: Tensor | None = None, prompt: Any = None) -> list[Tensor]:
        raise ValueError(self.why_no_sound)


class MelFrames(Frames):
    """The log-mel that the acoustic side of a LoSATok sees, the mel frames of a token side by side.

    Sound is made of it by Griffin and Lim's search for the phases (1984), which nothing is learnt for.

    Args:
        num_mels: M; D is four times that.
    """

    kind = "mel"
    can_decode = True

    def __init__(self, num_mels: int) -> None:
        self._front_end = FrontEnd(N_FFT, num_mels, power=1)
        self._num_mels = num_mels

    @property
    def latent_size(self) -> int:
        return self._num_mels * PATCH_FRAMES

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.kind} {self._num_mels} {N_FFT} {HOP_LENGTH} {PATCH_FRAMES}".encode()).hexdigest()

    def frames(self, waveform: Tensor) -> Tensor:
        piece = extend(waveform)[None, : piece_samples(count_tokens(len(waveform)))]
        log_mel_MF = log_magnitudes(self._front_end(piece))[0]
        return log_mel_MF.T.reshape(-1, self.latent_size)

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.pinv(self._front_end.filters.T)

    @torch.no_grad()
    def decode(self, codes: Any, speaker: Tensor | None = None, prompt: Any = None) -> list[Tensor]:
        """Sound of `Latents`, each ``[T * 640]``."""
        return [self._sound(codes[index]) for index in range(len(codes))]

    def _sound(self, frames_TD: Tensor) -> Tensor:
        log_mel_MF = frames_TD.reshape(-1, self._num_mels).T
        magnitude_KF = (self._inverse @ log_mel_MF.exp()).clamp(min=0)
        magnitude_KF = torch.cat([magnitude_KF, magnitude_KF[:, -1:]], dim=1)  # a frame is centred on the last sample
        settings: dict[str, Any] = {"n_fft": N_FFT, "hop_length": HOP_LENGTH, "window": self._front_end.window}
        length = len(frames_TD) * TOKEN_SAMPLES
        # From the same phases every time.
        drawn = torch.rand(magnitude_KF.shape, generator=torch.Generator().manual_seed(0))
        spectrum_KF = torch.polar(magnitude_KF, 2 * torch.pi * drawn)
        for _ in range(ROUNDS):
            waveform = torch.istft(spectrum_KF, length=length, **settings)
            # Constant, as a clip may be shorter than half a window, which cannot be reflected.
            again_KF = torch.stft(waveform, return_complex=True, pad_mode="constant", **settings)
            spectrum_KF = torch.polar(magnitude_KF, again_KF.angle())
        return torch.istft(spectrum_KF, length=length, **settings)


class TeacherFeatures(Frames):
    """A teacher's features as they are; nothing makes sound of them.

    Args:
        teacher: the frozen encoder.
        name: of it, as its features are kept by it.
    """

    kind = "features"

    def __init__(self, teacher: Teacher, name: str) -> None:
        self._semantic = SemanticEncoder(SemanticConfig(feature_size=teacher.feature_size), teacher).eval()
        self._name = name

    @property
    def latent_size(self) -> int:
        return self._semantic.config.feature_size

    def fingerprint(self) -> str:
        weights = sum(float(one.double().abs().sum()) for one in self._semantic.teacher.parameters())
        return hashlib.sha256(f"{self.kind} {self._name} {self.latent_size} {weights:.6e}".encode()).hexdigest()

    def frames(self, waveform: Tensor) -> Tensor:
        return high_features(self._semantic, waveform[None])[0]
