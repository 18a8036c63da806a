"""Who decodes: libsndfile where it can, else ffmpeg's libraries, through the ``ffmpeg`` program or through PyAV.

The program comes before PyAV: a crash or a bomb in it ends a process of its own.
"""

from __future__ import annotations

from .base import Decoder, DecodingError
from .choosing import NO_FFMPEG_ADVICE, available_decoders, open_with_ffmpeg
from .libsndfile import open_with_libsndfile

__all__ = [
    "NO_FFMPEG_ADVICE",
    "Decoder",
    "DecodingError",
    "available_decoders",
    "open_with_ffmpeg",
    "open_with_libsndfile",
]
