"""Short-time objective intelligibility, computed by pystoi."""

from __future__ import annotations

import warnings
from typing import Any

import evaluate
from torch import Tensor

from audiollm.benchmarks.metrics.waveform_pairs import (
    MAX_LENGTH_DIFFERENCE_SECONDS,
    bench_library,
    mean_score,
    waveform_metric_info,
    waveform_pairs,
)

STOI_SAMPLE_RATE = 16000  # Hz, at which papers report it; pystoi itself goes on to 10 kHz

_DESCRIPTION = """Short-time objective intelligibility (Taal et al., 2011), computed by pystoi: correlation of the
envelopes of third-octave bands, after the frames in which the reference is silent are removed. About 1 for equal
speech, about 0 for unrelated speech. The pair is compared at 16 kHz (pystoi goes on to 10 kHz)."""

_CITATION = "Taal et al., An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech, 2011"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of waveforms, floats in [-1, 1], each [N].
    references: list of as many waveforms; a pair may differ a little in length (the longer one is cut).
    prediction_sample_rate: Hz.
    reference_sample_rate: Hz.
    max_length_difference_seconds: pairs that differ by more are refused (default 0.25).
    extended: True computes ESTOI (Jensen and Taal, 2016) instead; default False.

Returns:
    stoi: float up to 1, the mean over clips; higher is better.
    scores: the same of every clip; None for one that cannot be scored: less than 0.4 s that is not silent.
    num_unscored: how many those are.
"""


class ShortTimeObjectiveIntelligibility(evaluate.Metric):
    """Short-time objective intelligibility; see ``inputs_description``."""

    def _info(self) -> evaluate.MetricInfo:
        return waveform_metric_info(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        prediction_sample_rate: int,
        reference_sample_rate: int,
        max_length_difference_seconds: float = MAX_LENGTH_DIFFERENCE_SECONDS,
        extended: bool = False,
    ) -> dict[str, Any]:
        pairs = waveform_pairs(
            predictions,
            references,
            prediction_sample_rate=prediction_sample_rate,
            reference_sample_rate=reference_sample_rate,
            sample_rate=STOI_SAMPLE_RATE,
            max_length_difference_seconds=max_length_difference_seconds,
        )
        scores = [_intelligibility(prediction, reference, extended) for prediction, reference in pairs]
        return mean_score("stoi", scores)


def _intelligibility(prediction: Tensor, reference: Tensor, extended: bool) -> float | None:
    # pystoi warns and gives 1e-5 where there is too little to compare, which would pass for a terrible score. For
    # clips below one of its frames it fails with a ValueError of NumPy's.
    if len(reference) < STOI_SAMPLE_RATE * 0.4 or not reference.any():
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            stoi = bench_library("pystoi").stoi
            return float(stoi(reference.numpy(), prediction.numpy(), STOI_SAMPLE_RATE, extended=extended))
        except RuntimeWarning:
            return None
