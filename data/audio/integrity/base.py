"""What is found out about the bytes of a recording before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

SEARCH_BLOCK_BYTES = 1 << 20
FIRST_SEARCH_BLOCK_BYTES = 1 << 12  # what is looked for often stands near by


@dataclass
class Part:
    """A range of a file that is a recording by itself; most files are one."""

    start: int
    end: int
    prefix: bytes = b""  # goes in front of the range: a header in place of one that is missing or wrong
    has_length: bool = True  # False: the number of samples that the header tells is a bound or a guess
    announced_samples: int = 0  # by a header; a decoder that speaks of fewer has read it wrong, or it is wrong
    misread: str = ""  # what libsndfile would take for something else, so that it must not read the range
    min_samples: int = 0  # that the range is known to hold: a decoder that gives fewer has left some out


@dataclass
class Extent:
    """What one format says of a stretch of a file: its recordings, and where it ends."""

    end: int
    parts: list[Part]
    problem: str = ""  # what is wrong with it
    is_told_from_junk: bool = False  # True: whatever follows `end` was looked over for more of the same
    ffmpeg_reads_all: bool = False  # True: ffmpeg goes on with the next part where libsndfile is of no use


@dataclass
class Contents:
    """What a whole file holds."""

    parts: list[Part] = field(default_factory=list)
    problem: str = ""  # what is wrong with it; what is there can be read nevertheless
    unknown_beginning: str = ""  # what is wrong if a decoder finds sound all the same: it has looked further behind
    refusal: str = ""  # why it cannot be read at all
    ffmpeg_reads_all: bool = True  # False: ffmpeg would stop behind the first part


def read_at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    """Reads up to ``num_bytes`` from a place; none behind the end."""
    file.seek(position)
    return file.read(num_bytes)


def occurrences(file: BinaryIO, pattern: bytes, start: int, end: int) -> Iterator[int]:
    """Yields where a pattern occurs in a range, in order."""
    position, overlap, block_bytes = start, len(pattern) - 1, FIRST_SEARCH_BLOCK_BYTES
    while position < end:
        block = read_at(file, position, min(block_bytes, end - position))
        if not block:
            return
        found = block.find(pattern)
        while found >= 0:
            yield position + found
            found = block.find(pattern, found + 1)
        if position + len(block) >= end:
            return
        position += max(1, len(block) - overlap)
        block_bytes = min(2 * block_bytes, SEARCH_BLOCK_BYTES)
