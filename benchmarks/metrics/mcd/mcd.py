"""Mel-cepstral distortion."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import torch
from torch import Tensor

from audiollm.benchmarks.metrics.waveform_pairs import (
    MAX_LENGTH_DIFFERENCE_SECONDS,
    mean_score,
    waveform_metric_info,
    waveform_pairs,
)
from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram

NUM_COEFFICIENTS = 13

_DESCRIPTION = """Mel-cepstral distortion in decibels (Kubichek, 1993): 10 √2 / ln 10 times the root of the summed
squared differences of mel-cepstral coefficients 1 to 13, averaged over frames. Coefficient 0, the loudness, is left
out. The coefficients are those of the cosine series of a natural-log mel spectrogram (22.05 kHz, 80 Slaney bands of
magnitudes, hop 256), so that the value is the root mean square difference of the two smoothed spectra in dB. Frames
are compared one to one, without time warping. Values from other cepstra (WORLD, SPTK) are similar, not equal."""

_CITATION = "Kubichek, Mel-cepstral distance measure for objective speech quality assessment, 1993"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of waveforms, floats in [-1, 1], each [N].
    references: list of as many waveforms; a pair may differ a little in length (the longer one is cut).
    prediction_sample_rate: Hz.
    reference_sample_rate: Hz.
    max_length_difference_seconds: pairs that differ by more are refused (default 0.25).

Returns:
    mcd: float ≥ 0 in dB, the mean over clips; lower is better.
    scores: the same of every clip; None for one that cannot be scored: shorter than one window (46 ms).
    num_unscored: how many those are.
"""


class MelCepstralDistortion(evaluate.Metric):
    """Mel-cepstral distortion in dB; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        return waveform_metric_info(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        prediction_sample_rate: int,
        reference_sample_rate: int,
        max_length_difference_seconds: float = MAX_LENGTH_DIFFERENCE_SECONDS,
    ) -> dict[str, Any]:
        mel = MelSpectrogram(MelConfig())
        pairs = waveform_pairs(
            predictions,
            references,
            prediction_sample_rate=prediction_sample_rate,
            reference_sample_rate=reference_sample_rate,
            sample_rate=mel.config.sample_rate,
            max_length_difference_seconds=max_length_difference_seconds,
        )
        return mean_score("mcd", [_distortion(mel, prediction, reference) for prediction, reference in pairs])


@torch.no_grad()
def _distortion(mel: MelSpectrogram, prediction: Tensor, reference: Tensor) -> float | None:
    if len(prediction) < mel.config.n_fft:
        return None
    # The series is linear: of a difference of log spectra it is the difference of their series, at half the work.
    difference_CT = _cosine_series(mel.config.num_mels) @ (mel(prediction) - mel(reference))
    return 10 * math.sqrt(2) / math.log(10) * float(difference_CT.square().sum(dim=0).sqrt().mean())


def _cosine_series(num_mels: int) -> Tensor:
    """Maps a log spectrum [M] to the c with log spectrum = c_0 + Σ c_k cos(π k (m + ½) / M), float32 [C, M]."""
    # float64: angles of high orders lose digits in float32 before the cosine is taken.
    orders_C1 = torch.arange(1, NUM_COEFFICIENTS + 1, dtype=torch.float64)[:, None]
    angles_CM = torch.pi * orders_C1 * (torch.arange(num_mels) + 0.5) / num_mels
    return (2 / num_mels * angles_CM.cos()).float()
