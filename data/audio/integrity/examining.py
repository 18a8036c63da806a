"""Goes over the bytes of a recording."""

from __future__ import annotations

from typing import BinaryIO

from .base import Contents, Part
from .containers import joins_several_ogg_streams, mp3_length_header, promised_size, starts_like_audio

__all__ = ["examine", "starts_like_audio"]

GIT_LFS_POINTER = b"version https://git-lfs"


def examine(file: BinaryIO, num_bytes: int) -> Contents:
    file.seek(0)
    if file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
        return Contents(refusal="is a Git LFS pointer, not the recording; run `git lfs pull`")
    contents = Contents([Part(0, num_bytes)])
    promised = promised_size(file, num_bytes)
    if promised is not None and promised > num_bytes:
        contents.problem = (
            f"is truncated: its header promises audio up to byte {promised}, but the file ends at {num_bytes}"
        )
    if joins_several_ogg_streams(file, num_bytes):
        contents.unsupported = "joins several Ogg streams, of which libsndfile plays only the first"
    header = mp3_length_header(file, num_bytes)
    if header is not None:
        contents.parts = [Part(header[1], num_bytes, header[0], has_length=False)]
    return contents
