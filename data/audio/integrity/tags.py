"""What may lie around audio and is none: tags of music players, and padding."""

from __future__ import annotations

from typing import BinaryIO

from .base import read_at

ID3V2_HEADER_BYTES = 10
ID3V1_BYTES = 128
ENHANCED_ID3V1_BYTES = 227
APE_HEADER_BYTES = 32
LYRICS_MAX_BYTES = 5100 + 20  # Lyrics3 v1, which has no size
PADDING_BLOCK_BYTES = 1 << 16


def skip_tags(file: BinaryIO, position: int, end: int) -> int:
    """Returns where the tags, zeros and white space end that begin at ``position``."""
    while position < end:
        behind = min(end, _end_of_tag(file, position, end))
        if behind <= position:
            break
        position = behind
    return position


def _end_of_tag(file: BinaryIO, position: int, end: int) -> int:
    head = read_at(file, position, APE_HEADER_BYTES)[: end - position]
    if head.startswith((b"ID3", b"3DI")) and len(head) >= ID3V2_HEADER_BYTES:
        return position + _id3v2_bytes(head)
    if head.startswith(b"TAG+") and end - position >= ENHANCED_ID3V1_BYTES:
        return position + ENHANCED_ID3V1_BYTES
    if head.startswith(b"TAG") and end - position >= ID3V1_BYTES:
        return position + ID3V1_BYTES
    if head.startswith(b"APETAGEX") and len(head) == APE_HEADER_BYTES:
        # Size of the items and the footer; a header, which bit 29 of its own flags marks, comes on top.
        size, flags = int.from_bytes(head[12:16], "little"), int.from_bytes(head[20:24], "little")
        return position + (APE_HEADER_BYTES + size if flags & 1 << 29 else APE_HEADER_BYTES)
    if head.startswith(b"LYRICSBEGIN"):
        text = read_at(file, position, LYRICS_MAX_BYTES)
        ends = [text.find(mark) for mark in (b"LYRICSEND", b"LYRICS200")]
        return position + (min([found for found in ends if found >= 0], default=-9) + 9)
    if head[:1] in (b"\0", b" ", b"\r", b"\n", b"\t"):
        return _end_of_padding(file, position, end)
    return position


def _id3v2_bytes(head: bytes) -> int:
    # The size is 4 x 7 bits; bit 4 of the flags announces a footer of another 10 bytes.
    size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
    return ID3V2_HEADER_BYTES * (2 if head[5] & 16 else 1) + size


def _end_of_padding(file: BinaryIO, position: int, end: int) -> int:
    while position < end:
        block = read_at(file, position, min(PADDING_BLOCK_BYTES, end - position))
        kept = block.lstrip(b"\0 \r\n\t")
        position += len(block) - len(kept)
        if kept or not block:
            break
    return position
