"""What every decoder gives: blocks of samples, one after the other."""
# Shapes: n samples, C channels.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class DecodingError(Exception):
    """The decoder's own words on why it cannot open a file, or cannot go on."""


@dataclass
class Decoder:
    """An opened file, or a range of one, that is a recording by itself."""

    name: str  # "libsndfile", "ffmpeg" or "PyAV"
    format: str  # container and encoding, such as "WAV PCM_16"
    sample_rate: int  # Hz
    num_channels: int
    num_samples: int | None  # None: only decoding tells
    read: Callable[[int], np.ndarray]  # samples wanted -> float32 [n, C]; fewer at the end, then none; DecodingError
    problem: str = ""  # what the decoder itself finds wrong with the file
    seek: Callable[[int], None] | None = None  # to a sample, exactly; None where only reading gets there
