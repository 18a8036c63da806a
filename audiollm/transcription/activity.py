"""How much goes on in a recording, frame by frame: by its level, or by a voice activity detector.

Both give a score per frame of 32 ms; the lower it is, the better a place to cut. They see the recording block by
block and hold less than a frame of it.
"""
# Shapes: N samples of a block, F frames that they complete.

from __future__ import annotations

import math
from typing import Any, Literal, Protocol, get_args

import numpy as np
import soxr
import torch

ActivityMeasure = Literal["level", "silero"]

FRAME_SECONDS = 0.032
# Below what a microphone in a silent room gives, and above the rounding noise of 16 bits (-98 dB).
SILENT_DECIBEL = -70.0
SILERO_RATE = 16_000  # Hz
SILERO_SAMPLES = 512  # of a frame
SPEECH_PROBABILITY = 0.5  # from which on Silero's own functions call a frame speech


class Activity(Protocol):
    """Scores the frames of one recording.

    Attributes:
        threshold: a piece all of whose frames lie below it holds nothing to write down.
    """

    threshold: float

    def scores(self, block_N: np.ndarray, is_last: bool = False) -> np.ndarray:
        """Scores the frames that a block completes.

        Args:
            block_N: the samples that follow, float32.
            is_last: whether none follow; what is left of a frame is scored, too.

        Returns:
            float32 ``[F]``.
        """
        ...


def activity_of(measure: str, sample_rate: int) -> Activity:
    """What scores a recording.

    Args:
        measure: "level" for the loudness, "silero" for Silero's voice activity detector.
        sample_rate: of the recording, in Hz.

    Raises:
        ValueError: for another measure.
        ImportError: ``silero-vad`` or ``onnxruntime`` is missing.
    """
    if measure == "level":
        return LevelActivity(sample_rate)
    if measure == "silero":
        return SileroActivity(sample_rate)
    raise ValueError(f"pauses={measure!r}: use one of {', '.join(get_args(ActivityMeasure))}")


class _Frames:
    """Cuts blocks into frames of one length; what is left waits for the next block."""

    def __init__(self, frame_samples: int) -> None:
        self._frame_samples = frame_samples
        self._held = np.empty(0, np.float32)

    def complete(self, block_N: np.ndarray, is_last: bool) -> np.ndarray:
        """float32 ``[F, frame_samples]``; the last sample fills up the last one, which adds no step to it."""
        samples = np.concatenate([self._held, block_N])
        if is_last and len(samples):
            samples = np.pad(samples, (0, -len(samples) % self._frame_samples), mode="edge")
        num_frames = len(samples) // self._frame_samples
        self._held = samples[num_frames * self._frame_samples :]
        return samples[: num_frames * self._frame_samples].reshape(num_frames, self._frame_samples)


class LevelActivity:
    """The level of each frame in dB of full scale, around its mean: an offset of all samples is no sound."""

    threshold = SILENT_DECIBEL

    def __init__(self, sample_rate: int) -> None:
        self._frames = _Frames(frame_samples(sample_rate))

    def scores(self, block_N: np.ndarray, is_last: bool = False) -> np.ndarray:
        """As `Activity.scores`."""
        frames = self._frames.complete(block_N, is_last)
        power = frames.var(axis=1, dtype=np.float64)
        return (10 * np.log10(np.maximum(power, 1e-20))).astype(np.float32)


class SileroActivity:
    """The probability of speech in each frame, by Silero's detector (https://github.com/snakers4/silero-vad)."""

    threshold = SPEECH_PROBABILITY

    def __init__(self, sample_rate: int) -> None:
        self._model = _load_silero()
        self._frames = _Frames(SILERO_SAMPLES)
        # Frame by frame and not second by second: scores and samples would drift apart over hours.
        ratio = (frame_samples(sample_rate), SILERO_SAMPLES)
        self._resampler = soxr.ResampleStream(*ratio, 1) if ratio[0] != ratio[1] else None

    def scores(self, block_N: np.ndarray, is_last: bool = False) -> np.ndarray:
        """As `Activity.scores`."""
        if self._resampler is not None:
            block_N = self._resampler.resample_chunk(block_N, last=is_last)
        frames = torch.from_numpy(self._frames.complete(block_N, is_last))
        return np.array([self._model(frame, SILERO_RATE).item() for frame in frames], np.float32)


def _load_silero() -> Any:
    """The detector that comes with the package ``silero-vad``, in ONNX; a new one, for it remembers what it heard."""
    # Importing it sets torch to one thread, for the whole process.
    num_threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad

        return load_silero_vad(onnx=True)
    except ImportError as error:
        raise ImportError(
            f"pauses='silero' needs silero-vad and onnxruntime ({error}): pip install 'audiollm[vad]', or use "
            "pauses='level'"
        ) from error
    finally:
        torch.set_num_threads(num_threads)


def frame_samples(sample_rate: int) -> int:
    """How many samples of a recording make a frame; at least 1."""
    return max(1, round(FRAME_SECONDS * sample_rate))


def frames_in(seconds: float) -> int:
    """How many whole frames there are in so many seconds; at least 1."""
    return max(1, math.floor(seconds / FRAME_SECONDS + 1e-9))
