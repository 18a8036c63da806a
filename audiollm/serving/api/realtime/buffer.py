"""The sound that came in and is not committed yet. Places are counted in samples from the session's beginning."""

from __future__ import annotations

import numpy as np

from audiollm.serving.sound.formats import RESPONSE_RATE

SAMPLE_BYTES = 2


class InputBuffer:
    """Takes 16-bit samples, and gives them in turns.

    Attributes:
        start: place of the first sample that it holds.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self.start = 0

    @property
    def end(self) -> int:
        """Place behind the last sample."""
        return self.start + len(self._data) // SAMPLE_BYTES

    @property
    def seconds(self) -> float:
        """How much it holds."""
        return (self.end - self.start) / RESPONSE_RATE

    def add(self, pcm: bytes) -> None:
        """Takes samples."""
        self._data += pcm

    def take(self, until: int | None = None) -> bytes:
        """Gives the samples before a place, and forgets them."""
        length = len(self._data) if until is None else SAMPLE_BYTES * min(max(until - self.start, 0), len(self._data))
        taken = bytes(self._data[:length])
        del self._data[:length]
        self.start += len(taken) // SAMPLE_BYTES
        return taken

    def forget_before(self, place: int) -> None:
        """Forgets the samples before a place."""
        if place > self.start:
            self.take(place)


def milliseconds(place: int) -> int:
    """A place in ms."""
    return round(1000 * place / RESPONSE_RATE)


def waveform_of(pcm: bytes) -> np.ndarray:
    """float32 ``[N]`` in [-1, 1) of 16-bit samples."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
