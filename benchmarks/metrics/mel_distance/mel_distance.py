"""Distance of log-mel spectrograms."""

from __future__ import annotations

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

_DESCRIPTION = """Mean absolute difference of two natural-log mel spectrograms at 22.05 kHz (80 Slaney bands up to 8
kHz, hop 256, magnitudes below 1e-5 taken as 1e-5): the distance that vocoders are trained on. 0 is equal, and 0.69 is
a factor of two everywhere. Quiet frames count as much as loud ones."""

_CITATION = ""

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of waveforms, floats in [-1, 1], each [N].
    references: list of as many waveforms; a pair may differ a little in length (the longer one is cut).
    prediction_sample_rate: Hz.
    reference_sample_rate: Hz.
    max_length_difference_seconds: pairs that differ by more are refused (default 0.25).

Returns:
    mel_distance: float ≥ 0, the mean over clips; lower is better.
    scores: the same of every clip; None for one that cannot be scored: shorter than one window (46 ms).
    num_unscored: how many those are.
"""


class MelDistance(evaluate.Metric):
    """Mean absolute log-mel difference; see ``inputs_description``."""

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
        return mean_score("mel_distance", [_distance(mel, prediction, reference) for prediction, reference in pairs])


@torch.no_grad()
def _distance(mel: MelSpectrogram, prediction: Tensor, reference: Tensor) -> float | None:
    if len(prediction) < mel.config.n_fft:
        return None
    return float((mel(prediction) - mel(reference)).abs().mean())
