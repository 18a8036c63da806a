"""Hashes of files: what tells whether two of them hold the same bytes."""

from __future__ import annotations

import hashlib
import os
from typing import IO

HASH_BLOCK_BYTES = 1 << 20


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return stream_sha256(file)


def stream_sha256(stream: IO[bytes]) -> str:
    """SHA-256 of what is left to read of a stream, in hexadecimal digits; memory holds a block at a time."""
    digest = hashlib.sha256()
    while block := stream.read(HASH_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
