"""Fundamental frequency of recordings, by the WORLD vocoder's estimators: what the vocoder's F0 predictor learns.

DIO finds candidates and StoneMask refines them (Morise et al., 2009 and 2016); Harvest is slower and finds more voiced
frames in noisy recordings.
"""
# Shapes: N samples, M mel frames.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from audiollm.data.audio.pitch import load_pyworld
from audiollm.tokenizer.signal.mel import MelConfig

from .shards import Column, DecoderItem

PitchMethod = Literal["dio", "harvest"]

# Raise when the same settings give other values, so that stored ones are not taken for them.
_VERSION = 1


def fundamental_frequency(
    waveform: Tensor,
    mel: MelConfig,
    *,
    method: PitchMethod = "dio",
    min_frequency: float = 60.0,
    max_frequency: float = 600.0,
) -> Tensor:
    """Estimates the fundamental frequency at the middle of every mel frame.

    Args:
        waveform: samples in [-1, 1] at the mel's sample rate, ``[N]``.
        mel: gives the sample rate and the hop between frames.
        method: ``dio``, or ``harvest``, which takes some twenty times as long.
        min_frequency: lowest frequency looked for, in Hz.
        max_frequency: highest frequency looked for, in Hz.

    Returns:
        Hz, 0 where unvoiced, float32 ``[N // hop_length]``.

    Raises:
        ValueError: if pyworld is not installed or the range of frequencies is empty.
    """
    pyworld = load_pyworld()
    if not 0 < min_frequency < max_frequency:
        raise ValueError(f"no frequency lies between {min_frequency} and {max_frequency} Hz; give a range above 0")
    num_frames = waveform.shape[-1] // mel.hop_length
    # The estimators' frame m is at m hops; the spectrogram's is half a hop later.
    samples = waveform[mel.hop_length // 2 :].double().cpu().numpy()
    estimate = pyworld.dio if method == "dio" else pyworld.harvest
    frequency, seconds = estimate(
        samples,
        mel.sample_rate,
        f0_floor=min_frequency,
        f0_ceil=max_frequency,
        frame_period=1000 * mel.hop_length / mel.sample_rate,
    )
    refined = torch.from_numpy(pyworld.stonemask(samples, frequency, seconds, mel.sample_rate)).float()
    return torch.nn.functional.pad(refined[:num_frames], (0, max(0, num_frames - len(refined))))


def pitch_column(mel: MelConfig, method: PitchMethod, min_frequency: float, max_frequency: float) -> Column:
    """The fundamental frequency as something that is computed once of every prepared clip, and stored beside it.

    Raises:
        ValueError: if pyworld is not installed.
    """
    load_pyworld()  # before hours of preparing

    def compute(item: DecoderItem) -> Tensor:
        return fundamental_frequency(
            item.waveform, mel, method=method, min_frequency=min_frequency, max_frequency=max_frequency
        )

    settings = {
        "version": _VERSION, "method": method, "min_frequency": min_frequency, "max_frequency": max_frequency,
    }  # fmt: skip
    return Column(name="f0", settings=settings, compute=compute)


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
