"""What the bytes of a recording hold: in how many parts, whether all of it is there, and whether anything follows."""

from __future__ import annotations

from .base import Contents, Part
from .examining import examine, starts_like_audio

__all__ = ["Contents", "Part", "examine", "starts_like_audio"]
