"""Perceptual evaluation of speech quality, computed by the pesq library."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import torch
from torch import Tensor

from audiollm.benchmarks.metrics.waveform_pairs import (
    MAX_LENGTH_DIFFERENCE_SECONDS,
    bench_library,
    mean_score,
    waveform_metric_info,
    waveform_pairs,
)

PESQ_SAMPLE_RATE = 16000  # Hz, of the wide-band mode (ITU-T P.862.2)
MAX_PIECE_SECONDS = 20.0  # the standard's own code is made for 8 to 20 s, and crashes on minutes of speech
MIN_PIECE_SECONDS = 0.25

_DESCRIPTION = """Wideband PESQ (ITU-T P.862.2) at 16 kHz, computed by the pesq library: a predicted mean opinion score
between about 1 and 4.64. It is meant for telephone and codec distortions of speech; resynthesised speech that sounds
good can score low. Recordings above 20 s are scored in equal pieces, and the mean over those in which speech was found
counts."""

_CITATION = "ITU-T P.862.2, Wideband extension to Recommendation P.862 for wideband speech, 2007"

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of waveforms, floats in [-1, 1], each [N].
    references: list of as many waveforms; a pair may differ a little in length (the longer one is cut).
    prediction_sample_rate: Hz.
    reference_sample_rate: Hz.
    max_length_difference_seconds: pairs that differ by more are refused (default 0.25).

Returns:
    pesq: float from about 1 to 4.64, the mean over clips; higher is better.
    scores: the same of every clip; None for one that cannot be scored: below 0.25 s, or the library finds no speech.
    num_unscored: how many those are.
"""


class PerceptualEvaluationOfSpeechQuality(evaluate.Metric):
    """Wideband PESQ; see ``inputs_description``."""

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
        pairs = waveform_pairs(
            predictions,
            references,
            prediction_sample_rate=prediction_sample_rate,
            reference_sample_rate=reference_sample_rate,
            sample_rate=PESQ_SAMPLE_RATE,
            max_length_difference_seconds=max_length_difference_seconds,
        )
        return mean_score("pesq", [_quality(prediction, reference) for prediction, reference in pairs])


def _quality(prediction: Tensor, reference: Tensor) -> float | None:
    num_pieces = math.ceil(len(reference) / (MAX_PIECE_SECONDS * PESQ_SAMPLE_RATE))
    pieces = zip(torch.tensor_split(prediction, num_pieces), torch.tensor_split(reference, num_pieces), strict=True)
    scores = [_piece_quality(given, wanted) for given, wanted in pieces]
    scored = [score for score in scores if score is not None]
    return sum(scored) / len(scored) if scored else None


def _piece_quality(prediction: Tensor, reference: Tensor) -> float | None:
    if len(reference) <= MIN_PIECE_SECONDS * PESQ_SAMPLE_RATE or not reference.any() or not prediction.any():
        return None
    library = bench_library("pesq")
    try:
        return float(library.pesq(PESQ_SAMPLE_RATE, reference.numpy(), prediction.numpy(), "wb"))
    except library.NoUtterancesError:
        return None
