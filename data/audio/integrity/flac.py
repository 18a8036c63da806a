"""FLAC: another file behind the first, and frames behind the end that the header announces.

libsndfile reads as many samples as the header says, and stops.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from .base import Extent, Part, occurrences, read_at
from .chunks import CHUNKED
from .ogg import PAGE_MARK
from .tags import skip_tags

MAGIC = b"fLaC"
STREAMINFO_BYTES = 34
# A file begins with its STREAMINFO block, of type 0; bit 7 marks the only block of metadata.
BEGINNINGS = (MAGIC + b"\x00\x00\x00\x22", MAGIC + b"\x80\x00\x00\x22")
TAIL_BYTES = 1 << 18  # looked over for the last frame; frames have 4,096 samples as a rule, a few kB
HEADER_BYTES = 16  # of a frame, at most
MIN_FRAME_BYTES = 8
MAX_FRAME_BYTES = 1 << 22
MAX_LAST_FRAMES = 4  # places that look like the header of the last frame; each has its checksum tried
_OTHER_BEGINNINGS = (*CHUNKED, MAGIC, PAGE_MARK, b".snd", b"ID3", b"TAG", b"APETAGEX", b"\0\0\0\0")
_FRAME_MARK = re.compile(rb"\xff[\xf8\xf9]")
BLOCK_SIZES = {
    1: 192,
    **{code: 576 << code - 2 for code in range(2, 6)},
    **{code: 256 << code - 8 for code in range(8, 16)},
}


def _table(polynomial: int, num_bits: int) -> list[int]:
    entries = []
    for value in range(256):
        remainder = value << num_bits - 8
        for _ in range(8):
            carry = remainder >> num_bits - 1
            remainder = (remainder << 1 & (1 << num_bits) - 1) ^ (polynomial if carry else 0)
        entries.append(remainder)
    return entries


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


def measure_flac(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """Looks for what lies behind the end that the header announces.

    Args:
        file: seekable binary file; its position is changed.
        start: where "fLaC" stands.
        num_bytes: size of the file.
    """
    info = read_at(file, start + 8, STREAMINFO_BYTES)
    frames_start = _end_of_metadata(file, start, num_bytes)
    marks = occurrences(file, MAGIC, frames_start, num_bytes)
    end = next((mark for mark in marks if read_at(file, mark, len(BEGINNINGS[0])) in BEGINNINGS), num_bytes)
    problem = ""
    total = int.from_bytes(info[13:18], "big") & (1 << 36) - 1
    audio_end = end if total else _without_tags_behind(file, frames_start, end)
    if total:
        last = _end_of_last_frame(file, frames_start, end, info)
        if last is not None and last > total:
            problem = f"is damaged: its header announces {total} samples, but its frames go on to sample {last}"
        elif last is None or last == total:
            end = audio_end = _end_of_frames(file, frames_start, end, info, total)
    return Extent(end, [Part(start, audio_end)], problem, is_told_from_junk=not total)


def _end_of_frames(file: BinaryIO, start: int, end: int, info: bytes, total: int) -> int:
    """Where the frame ends that holds the last announced sample; ``end`` if it is not found."""
    position, num_tried = end, 0
    while position > start:
        block_start = max(start, position - TAIL_BYTES)
        block = read_at(file, block_start, min(end, position + HEADER_BYTES) - block_start)
        for found in reversed([*_FRAME_MARK.finditer(block)]):
            if _sample_behind(block[found.start() : found.start() + HEADER_BYTES], info) == total:
                begin = block_start + found.start()
                frame_end = _end_of_frame(file, begin, end)
                num_tried += 1
                if frame_end is not None or num_tried == MAX_LAST_FRAMES:
                    return end if frame_end is None else frame_end
        position = block_start
    return end


def _end_of_frame(file: BinaryIO, begin: int, end: int) -> int | None:
    """Where the last frame ends: at ``end``, or behind its checksum, where something known begins if there is any."""
    frame = read_at(file, begin, min(end - begin, MAX_FRAME_BYTES))
    ends = _ends_by_checksum(frame)
    if not ends or ends[-1] == end - begin:
        return begin + ends[-1] if ends else None
    # One place in 65,536 looks like the end of a frame by chance.
    known = [place for place in ends if frame.startswith(_OTHER_BEGINNINGS, place)]
    return begin + [*known, *ends][0]


def _ends_by_checksum(frame: bytes) -> list[int]:
    """Places in front of which the checksum is that of everything before it."""
    ends, remainder = [], 0
    for place, byte in enumerate(frame, 1):
        remainder = (remainder << 8 & 0xFFFF) ^ _CRC16[(remainder >> 8) ^ byte]
        if not remainder and place > MIN_FRAME_BYTES:
            ends.append(place)
    return ends


def _end_of_metadata(file: BinaryIO, start: int, num_bytes: int) -> int:
    position = start + len(MAGIC)
    while position < num_bytes:
        header = read_at(file, position, 4)
        position += 4 + int.from_bytes(header[1:], "big")
        if len(header) < 4 or header[0] & 0x80:
            break
    return min(position, num_bytes)


def _without_tags_behind(file: BinaryIO, start: int, end: int) -> int:
    """The decoder stumbles over a tag where it is not told how many samples there are."""
    tail_start = max(start, end - TAIL_BYTES)
    tail = read_at(file, tail_start, end - tail_start)
    for mark in (b"TAG", b"APETAGEX", b"ID3"):
        found = tail.rfind(mark)
        if found >= 0 and skip_tags(file, tail_start + found, end) == end:
            return tail_start + found
    return end


def _end_of_last_frame(file: BinaryIO, start: int, end: int, info: bytes) -> int | None:
    """The number of the sample behind the last frame; ``None`` if the tail shows no two frames in a row."""
    tail_start = max(start, end - TAIL_BYTES)
    tail = read_at(file, tail_start, end - tail_start)
    frames: list[tuple[int, int]] = []  # where a frame begins, and the sample behind it
    for found in _FRAME_MARK.finditer(tail):
        behind = _sample_behind(tail[found.start() : found.start() + HEADER_BYTES], info)
        if behind is not None:
            frames.append((found.start(), behind))
    # A frame ends with a checksum over all of it: so the place of the next one is proven by the one in front of it.
    for (begin, _), (following, behind) in zip(reversed(frames[:-1]), reversed(frames[1:]), strict=True):
        if _crc(tail[begin:following], _CRC16, 16) == 0:
            return behind
    return None


def _sample_behind(header: bytes, info: bytes) -> int | None:
    """Reads a frame's header; ``None`` if it is none."""
    if len(header) < HEADER_BYTES or header[3] & 1:
        return None
    number, position = _coded_number(header)
    if number is None:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 15
    if size_code == 0 or rate_code == 15:
        return None
    if size_code in (6, 7):
        num_bytes = size_code - 5
        block_size = int.from_bytes(header[position : position + num_bytes], "big") + 1
        position += num_bytes
    else:
        block_size = BLOCK_SIZES[size_code]
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if position >= len(header) or _crc(header[:position], _CRC8, 8) != header[position]:
        return None
    has_variable_blocks = bool(header[1] & 1)
    first = number if has_variable_blocks else number * int.from_bytes(info[2:4], "big")
    return first + block_size


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """Reads the frame's or sample's number, which is coded as UTF-8 codes characters, with up to 36 bits."""
    lead = header[4]
    num_more = 0 if lead < 0x80 else 8 - (~lead & 0xFF).bit_length() - 1
    if lead >= 0x80 and not 1 <= num_more <= 6:
        return None, 0
    value = lead if not num_more else lead & (1 << max(0, 6 - num_more)) - 1
    for byte in header[5 : 5 + num_more]:
        if byte >> 6 != 2:
            return None, 0
        value = value << 6 | byte & 63
    return value, 5 + num_more


def _crc(data: bytes, table: list[int], num_bits: int) -> int:
    remainder, mask = 0, (1 << num_bits) - 1
    for byte in data:
        remainder = (remainder << 8 & mask) ^ table[(remainder >> num_bits - 8) ^ byte]
    return remainder
