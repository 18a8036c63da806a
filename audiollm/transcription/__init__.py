"""Transcripts of recordings of any length: cut at pauses, written down piece by piece, with times."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pieces": ["Piece", "pieces_of"],
        "transcribing": ["Transcriber", "transcribe", "transcribe_stream"],
        "transcript": ["Transcript", "TranscriptSegment"],
    },
)
