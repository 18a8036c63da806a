"""Features of whole clips as a tokenizer gives them: the codes or latents, and one vector per clip."""
# Shapes: C clips, T frames (T_i of one clip), D feature size, V codebook entries.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiollm.benchmarks.codes.clustering import code_histograms
from audiollm.mini import audio_tokenizer_or_mini
from audiollm.tokenizer.base import AudioTokenizer, require_one_rate
from audiollm.tokenizer.modeling import UniAudioTokenizer

REASON = "reason"
"""Key of figures that are not there, and why."""
NO_CODES = "has continuous latents and no codes"
"""Why a tokenizer has none of the figures that are about codes."""
HISTOGRAM, LATENTS = "histogram", "latents"
"""Names of vectors."""


@dataclass(frozen=True)
class ClipFeatures:
    """Codes of some clips, and vectors that a probe can learn from."""

    codes: list[NDArray[np.int64]]
    """``[T_i]`` each, or ``[K, T_i]`` of several codebooks; none of a tokenizer with latents in their place."""
    codebook_size: int
    num_codebooks: int
    vectors: dict[str, NDArray[np.float64]]
    """``histogram`` ``[C, K * V]`` (shares of codes); of a tokenizer with features also ``entries`` ``[C, D]`` (mean of
    the codebook entries that stand for the clip) and ``features`` ``[C, D]`` (mean of what the quantizer saw). Of one
    without codes ``latents`` ``[C, D]`` (their mean over frames)."""
    quantization_error: float | None
    """Squared distance of frames to their entries over the variance of the frames; None without features."""

    @property
    def has_codes(self) -> bool:
        """Whether the tokenizer has codes, and not latents."""
        return self.codebook_size > 0

    @property
    def usage(self) -> float:
        """Share of the codebook that occurs, 0 to 1.

        Raises:
            ValueError: if there are no codes.
        """
        return float((self._counts() > 0).mean())

    @property
    def perplexity(self) -> float:
        """Exponential of the entropy of the codes: as many equally frequent codes would be as uncertain; 0 if none.

        Raises:
            ValueError: if there are no codes.
        """
        counts = self._counts()
        shares = counts[counts > 0] / max(1, counts.sum())
        return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0

    def _counts(self) -> NDArray[np.float64]:
        if not self.has_codes:
            raise ValueError(f"the tokenizer {NO_CODES}: none is in use")
        return code_histograms(self.codes, self.codebook_size, num_codebooks=self.num_codebooks, scale="counts").sum(
            axis=0
        )


def load_encoder(path_or_id: str, device: str, *, may_lack_codes: bool = False) -> AudioTokenizer:
    """The part of an audio tokenizer of any kind that gives codes; "mini" is the embedded one.

    Args:
        path_or_id: folder or Hub id.
        device: for its weights.
        may_lack_codes: whether one with latents in their place will do.

    Raises:
        ValueError: there is no such checkpoint, or it has no codes.
        OSError: the Hub does not give it.
    """
    audio_tokenizer = AudioTokenizer.from_pretrained(
        audio_tokenizer_or_mini(path_or_id), encoder_only=True, device=device
    )
    if audio_tokenizer.latent_size is not None and not may_lack_codes:
        raise ValueError(f"{path_or_id} has latents and no codes: give a tokenizer with codes")
    require_one_rate(audio_tokenizer, path_or_id)
    return audio_tokenizer


def encode_clips(audio_tokenizer: AudioTokenizer, waveforms: Sequence[Tensor], sample_rate: int) -> ClipFeatures:
    """Encodes clips.

    Args:
        audio_tokenizer: any; only `UniAudioTokenizer` gives features.
        waveforms: float ``[N_i]`` in [-1, 1].
        sample_rate: of all, in Hz.
    """
    if audio_tokenizer.latent_size is not None:
        latents = audio_tokenizer.encode(list(waveforms), sample_rate)
        rows = [_mean(latents[clip].double().numpy()) for clip in range(len(latents))]
        return ClipFeatures([], 0, 0, {LATENTS: np.stack(rows)}, None)
    if not isinstance(audio_tokenizer, UniAudioTokenizer):
        encoded = audio_tokenizer.encode(list(waveforms), sample_rate)
        codes = [np.array(clip_codes, dtype=np.int64) for clip_codes in encoded.tolist()]
        histogram = code_histograms(codes, audio_tokenizer.codebook_size, num_codebooks=audio_tokenizer.num_codebooks)
        return ClipFeatures(
            codes, audio_tokenizer.codebook_size, audio_tokenizer.num_codebooks, {HISTOGRAM: histogram}, None
        )
    encoded = audio_tokenizer.encode(list(waveforms), sample_rate, return_features=True)
    codes = [np.array(codes_T, dtype=np.int64) for codes_T in encoded.tolist()]
    # float64: means over minutes of frames, and differences of numbers that nearly agree.
    features = [features_TD.detach().cpu().double().numpy() for features_TD in encoded.features or []]
    entries_VD = audio_tokenizer.codebook.weight.detach().cpu().double().numpy()
    return ClipFeatures(
        codes=codes,
        codebook_size=audio_tokenizer.codebook_size,
        num_codebooks=1,
        vectors={
            HISTOGRAM: code_histograms(codes, audio_tokenizer.codebook_size),
            "entries": np.stack([_mean(entries_VD[codes_T]) for codes_T in codes]),
            "features": np.stack([_mean(features_TD) for features_TD in features]),
        },
        quantization_error=relative_error(np.concatenate(features), entries_VD[np.concatenate(codes)]),
    )


def relative_error(features_ND: NDArray[np.float64], quantized_ND: NDArray[np.float64]) -> float:
    """Squared distance over variance: 0 keeps everything, 1 is as good as one mean for all frames."""
    variance = features_ND.var(axis=0).sum()
    return float(((features_ND - quantized_ND) ** 2).sum(axis=1).mean() / variance) if variance > 0 else 0.0


def _mean(rows_TD: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows_TD.mean(axis=0) if len(rows_TD) else np.zeros(rows_TD.shape[1])
