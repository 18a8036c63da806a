"""Errors of a vocoder's predicted fundamental frequency."""
# Shapes: M mel frames.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PitchErrors:
    """How a predicted fundamental differs from the target, summed over the frames of a clip."""

    absolute: float  # Hz, summed over the frames that both call voiced
    num_voiced: int  # frames that both call voiced
    num_wrong: int  # frames that only one of them calls voiced
    num_frames: int


def pitch_errors(predicted: Tensor, target: Tensor, voiced_threshold: float) -> PitchErrors:
    """Compares two fundamentals in Hz, ``[M]``; below the threshold both mean unvoiced."""
    is_voiced, should_be = predicted > voiced_threshold, target > voiced_threshold
    both = is_voiced & should_be
    return PitchErrors(
        absolute=float((predicted - target).abs()[both].sum()),
        num_voiced=int(both.sum()),
        num_wrong=int((is_voiced != should_be).sum()),
        num_frames=len(target),
    )


def mean_pitch_errors(errors: Sequence[PitchErrors]) -> dict[str, float | None]:
    """Over all frames: ``f0_error`` in Hz where both are voiced, and ``voicing_error``, a share of frames."""
    voiced, frames = sum(one.num_voiced for one in errors), sum(one.num_frames for one in errors)
    return {
        "f0_error": sum(one.absolute for one in errors) / voiced if voiced else None,
        "voicing_error": sum(one.num_wrong for one in errors) / frames if frames else None,
    }
