"""How much of a recording is taken, counted while it is decoded: headers promise anything, few bytes become hours."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields

from .sources import AudioError

FLOAT32_BYTES = 4


class AudioLimitError(AudioError):
    """A recording that is larger than the caller takes, which says nothing against the recording."""


@dataclass(frozen=True, kw_only=True)
class AudioLimits:
    """Bounds on what is decoded of one recording; ``None``: no bound. Its length has an argument of its own.

    Raises:
        ValueError: a bound that is not positive.
    """

    max_channels: int | None = None
    """Most channels."""

    max_decoded_bytes: int | None = None
    """Most bytes of all samples of all channels, as float32 at the recording's own rate."""

    max_decoding_seconds: float | None = None
    """Longest that decoding may take by the clock. A decoder that is a process of its own is ended then."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name}={value}: use a positive number, or None for no bound")


NO_LIMITS = AudioLimits()


class LimitCounter:
    """What one reading has used of its limits; its clock starts when it is made.

    Args:
        limits: the bounds.
        name: what an error calls the recording.
    """

    def __init__(self, limits: AudioLimits, name: str) -> None:
        self._limits, self._name = limits, name
        self._num_bytes = 0
        self._started = time.monotonic()

    def seconds_left(self) -> float | None:
        """Seconds by the clock, 0 or more; ``None``: no bound."""
        if self._limits.max_decoding_seconds is None:
            return None
        return max(0.0, self._limits.max_decoding_seconds - (time.monotonic() - self._started))

    def check_time(self) -> None:
        """Raises:
        AudioLimitError: decoding takes too long.
        """
        if self.seconds_left() == 0:
            raise AudioLimitError(
                self._name,
                f"takes longer than {self._limits.max_decoding_seconds:g} s to decode, which is the limit here",
            )

    def check_promise(self, num_channels: int, num_samples: int | None) -> None:
        """Refuses what a header promises, before any of it is decoded.

        Args:
            num_channels: channels.
            num_samples: of each of them; ``None``: not known.

        Raises:
            AudioLimitError: too many channels or bytes.
        """
        most = self._limits.max_channels
        if most is not None and num_channels > most:
            raise AudioLimitError(self._name, f"has {num_channels} channels; at most {most} are taken here")
        self._check_bytes(FLOAT32_BYTES * num_channels * (num_samples or 0))

    def count(self, num_values: int) -> None:
        """Counts decoded values: samples times channels.

        Raises:
            AudioLimitError: too many bytes, or decoding takes too long.
        """
        self._num_bytes += FLOAT32_BYTES * num_values
        self._check_bytes(self._num_bytes)
        self.check_time()

    def _check_bytes(self, num_bytes: int) -> None:
        most = self._limits.max_decoded_bytes
        if most is not None and num_bytes > most:
            raise AudioLimitError(
                self._name,
                f"is more than {most} bytes when it is decoded (float32, all channels), which is the limit here",
            )
