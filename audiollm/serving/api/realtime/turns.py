"""Where somebody begins and ends to speak, frame by frame of what comes in."""
# Shapes: N samples of a block, F frames that they complete.

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from audiollm.serving.sound.formats import RESPONSE_RATE
from audiollm.transcription.activity import (
    FRAME_SECONDS,
    Activity,
    activity_of,
    frame_samples,
    frames_in,
)

from .configuration import TurnDetection

FIRST_FRAMES = 3  # so many frames of speech in a row begin a turn: a click has one or two
# By the level. Speech lies 20 dB and more above the room, its weakest sounds and its ends below that.
MARGIN_DECIBEL = 24.0  # at threshold 1; 12 dB above the room at 0.5
QUIETEST_DECIBEL = -60.0  # nothing below is speech, plus LOUDER_DECIBEL at threshold 1: -50 dB at 0.5
LOUDER_DECIBEL = 20.0
GUESSED_ROOM_DECIBEL = -50.0  # before enough was heard
GUESSED_FRAMES = 16
LOUDEST_ROOM_DECIBEL = -25.0
ROOM_SECONDS = 3.0  # somebody who speaks makes a pause as long as a frame within this time
# By Silero's network: what has begun goes on down to a lower probability, as in its own functions.
HYSTERESIS = 0.15
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True)
class Edge:
    """Speech begins or has ended.

    Attributes:
        is_start: it begins.
        place: of the first sample of speech, or of the first behind the silence that ends it.
    """

    is_start: bool
    place: int


class TurnDetector:
    """Tells turns.

    Args:
        settings: how.
        measure: "level", "silero", or "auto" for that one where it is installed.
        place: of the first sample that comes.

    Raises:
        ImportError: what the measure needs is missing.
    """

    def __init__(self, settings: TurnDetection, measure: str, place: int) -> None:
        if measure == "auto":
            measure = "silero" if find_spec("silero_vad") and find_spec("onnxruntime") else "level"
        self._activity: Activity = activity_of(measure, RESPONSE_RATE)
        self._judge: _Judge = _Level(settings.threshold) if measure == "level" else _Probability(settings.threshold)
        self._silent_frames = frames_in(settings.silence_duration_ms / 1000)
        self._place = place
        self.is_speaking = False
        self._num_active = self._num_silent = 0

    @property
    def first_place(self) -> int:
        """Where speech would have begun that the next frame makes sure."""
        return self._place - (self._num_active + 1) * _FRAME

    def feed(self, block_N: np.ndarray) -> Iterator[Edge]:
        """The edges in the frames that a block completes, float32 ``[N]``."""
        for score in self._activity.scores(block_N):
            self._place += _FRAME
            edge = self._step(self._judge.is_active(float(score), self.is_speaking))
            if edge is not None:
                yield edge

    def reset(self) -> None:
        """The turn is over, whoever speaks; what is known of the room stays known."""
        self.is_speaking = False
        self._num_active = self._num_silent = 0

    def _step(self, is_active: bool) -> Edge | None:
        self._num_active = self._num_active + 1 if is_active else 0
        self._num_silent = 0 if is_active else self._num_silent + 1
        if not self.is_speaking and self._num_active == FIRST_FRAMES:
            self.is_speaking = True
            return Edge(True, self._place - FIRST_FRAMES * _FRAME)
        if self.is_speaking and self._num_silent >= self._silent_frames:
            self.reset()
            return Edge(False, self._place)
        return None


_FRAME = frame_samples(RESPONSE_RATE)


class _Judge(Protocol):
    def is_active(self, score: float, is_speaking: bool) -> bool:
        """Whether a frame is speech."""


class _Level:
    """Speech is what is louder than the room: than the quietest frame of the last seconds, by a margin."""

    def __init__(self, threshold: float) -> None:
        self._margin = threshold * MARGIN_DECIBEL
        self._least = QUIETEST_DECIBEL + threshold * LOUDER_DECIBEL
        num_frames = round(ROOM_SECONDS / FRAME_SECONDS)
        self._heard: deque[float] = deque(maxlen=num_frames)

    def is_active(self, score: float, is_speaking: bool) -> bool:
        guess = LOUDEST_ROOM_DECIBEL if len(self._heard) >= GUESSED_FRAMES else GUESSED_ROOM_DECIBEL
        room = min([guess, *self._heard])
        self._heard.append(score)
        # The ends of words are weaker than their beginnings.
        return score > max(room + (self._margin / 2 if is_speaking else self._margin), self._least)


class _Probability:
    def __init__(self, threshold: float) -> None:
        self._threshold = max(threshold, LEAST_PROBABILITY)

    def is_active(self, score: float, is_speaking: bool) -> bool:
        lower = max(self._threshold - HYSTERESIS, LEAST_PROBABILITY)
        return score >= (lower if is_speaking else self._threshold)
