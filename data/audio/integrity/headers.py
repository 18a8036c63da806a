"""A plain header in front of the samples (AU, NIST SPHERE), or boxes (MP4, Matroska): does all of it lie behind?"""

from __future__ import annotations

import re
from typing import BinaryIO

from .base import Extent, Part, occurrences, read_at
from .tags import skip_tags

SPHERE_MAGIC = b"NIST_1A"
SPHERE_HEADER_LIMIT = 1 << 16
MATROSKA_MAGIC = b"\x1a\x45\xdf\xa3"
MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
VOC_MAGIC = b"Creative Voice File\x1a"[:16]
# TTA, Monkey's Audio, AMR, WMA, DSF, DSDIFF, RealMedia: their decoders notice a cut, but not a second file.
UNMEASURED_MAGICS = (
    b"TTA1",
    b"MAC ",
    b"#!AMR",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"DSD ",
    b"FRM8",
    b".RMF",
)
# What else only ffmpeg reads begins like one of these, if nothing is lost in front; and how far behind the beginning it
# stands: frames of MPEG audio whose size is not told; AC-3; DTS in its four spellings, and DTS-HD; AAC with one
# header, and in LOAS; WavPack, Flash, RealAudio, MPEG programs; QuickTime without its first box.
FFMPEG_BEGINNINGS = (
    *((b"\xff" + bytes([second]), 0) for second in range(0xE2, 0x100) if second & 0x06),
    *((mark, 0) for mark in (b"\x0b\x77", b"\x77\x0b")),
    *((mark, 0) for mark in (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\0", b"\xff\x1f\0\xe8")),
    *((mark, 0) for mark in (b"DTSHDHDR", b"ADIF", b"\x56\xe0", b"\x56\xe1")),
    *((mark, 0) for mark in (b"wvpk", b"FLV\1", b".ra\xfd", b"\0\0\1\xba")),
    *((mark, 4) for mark in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"uuid")),
)
# MPEG transport streams, with and without times or check sums: where the first packet begins, and its size.
TRANSPORT_PACKETS = ((0, 188), (4, 192), (0, 204))
BEGINNING_BYTES = 256  # in which the second packet of a transport stream begins
VOC_BLOCKS = range(1, 10)
VOC_SOUND_BLOCKS = (1, 2, 3, 6, 9)  # sound, more of it, silence, the start of a repetition, sound of version 1.20
AU_UNKNOWN_SIZE = 0xFFFFFFFF
MARK_BYTES = 8  # of a file of the same kind: the mark and the first fields behind it
MAX_BOXES = 1 << 16
_SPHERE_FIELD = re.compile(rb"^(\w+) -[irs]\d* (\S+)", re.MULTILINE)


def begins_for_ffmpeg(head: bytes) -> bool:
    """Tells whether these are the first bytes of a format that is not gone over, and that ffmpeg knows."""
    is_transport = any(head[place : place + size + 1 : size] == b"GG" for place, size in TRANSPORT_PACKETS)
    return is_transport or any(head.startswith(mark, place) for mark, place in FFMPEG_BEGINNINGS)


def measure_au(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """AU: offset and size of the samples; nothing may follow them."""
    header = read_at(file, start, 12)
    offset, size = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:12], "big")
    return _announced(file, start, start + offset, None if size == AU_UNKNOWN_SIZE else size, num_bytes, header)


def measure_sphere(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """NIST SPHERE: a header of text that gives samples, channels and bytes per sample."""
    head = read_at(file, start, 16)
    lines = head.split(b"\n")
    header_bytes = int(lines[1]) if len(lines) > 1 and lines[1].strip().isdigit() else 1024
    fields = dict(_SPHERE_FIELD.findall(read_at(file, start, min(header_bytes, SPHERE_HEADER_LIMIT))))
    try:
        counts = [int(fields[name]) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    except (KeyError, ValueError):
        counts = [-1]
    if min(counts) < 0:  # without them, the file's size is the only word
        return Extent(num_bytes, [Part(start, num_bytes)])
    if b"shorten" in fields.get(b"sample_coding", b"").lower():
        return Extent(num_bytes, [Part(start, num_bytes)])  # compressed: libsndfile refuses it, ffmpeg reads it
    return _announced(file, start, start + header_bytes, counts[0] * counts[1] * counts[2], num_bytes)


def _announced(
    file: BinaryIO, start: int, samples_start: int, size: int | None, num_bytes: int, au_header: bytes = b""
) -> Extent:
    whole = [Part(start, num_bytes)]
    if size is None or samples_start >= num_bytes:
        return Extent(num_bytes, whole)
    end = samples_start + size
    if end > num_bytes:
        return Extent(
            num_bytes,
            whole,
            f"is truncated: its header promises audio up to byte {end}, but the file ends at {num_bytes}",
        )
    behind = skip_tags(file, end, num_bytes)
    if size == 0 and behind < num_bytes and au_header:  # a recorder that was killed
        prefix = au_header[:8] + AU_UNKNOWN_SIZE.to_bytes(4, "big")
        return Extent(num_bytes, [Part(start + len(prefix), num_bytes, prefix)])
    return Extent(behind, [Part(start, end)])


def measure_matroska(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """Matroska or WebM: a header, then one segment with everything."""
    end = None
    header_size, header_start = _matroska_size(file, start + len(MATROSKA_MAGIC))
    segment = num_bytes if header_size is None else header_start + header_size
    if segment < num_bytes and read_at(file, segment, 4) == MATROSKA_SEGMENT:
        segment_size, segment_start = _matroska_size(file, segment + 4)
        end = None if segment_size is None else segment_start + segment_size
    return _boxes_end(start, num_bytes, num_bytes if end is None else end)


def _matroska_size(file: BinaryIO, position: int) -> tuple[int | None, int]:
    """Reads an element's size: the leading zero bits of its first byte count the bytes that follow."""
    field = read_at(file, position, 8)
    if not field or not field[0]:
        return None, position
    num_bytes = 9 - field[0].bit_length()
    value_bits = 7 * num_bytes
    size = int.from_bytes(field[:num_bytes], "big") & (1 << value_bits) - 1
    is_unknown = size == (1 << value_bits) - 1  # a live recording
    return None if is_unknown else size, position + num_bytes


def measure_mp4(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """MP4 and its like: boxes, each with its size; a second file begins with another "ftyp"."""
    position = start
    for _ in range(MAX_BOXES):
        header = read_at(file, position, 16)
        if len(header) < 8 or (position > start and header[4:8] == b"ftyp"):
            break
        size = int.from_bytes(header[:4], "big")
        if size == 0:  # to the end of the file
            position = num_bytes
        elif size == 1:
            position += int.from_bytes(header[8:16], "big")
        elif size < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in header[4:8]):
            break
        else:
            position += size
        if position >= num_bytes:
            break
    return _boxes_end(start, num_bytes, position)


def measure_by_magic(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """A format that is not gone over: it ends where the same mark stands again."""
    mark = read_at(file, start, MARK_BYTES)
    end = next(occurrences(file, mark, start + 1, num_bytes), num_bytes)
    return Extent(end, [Part(start, end)], is_told_from_junk=True)


def measure_voc(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """VOC: blocks of sound, silence and remarks; libsndfile takes all that follows the first header for sound."""
    position = start + int.from_bytes(read_at(file, start + 20, 2), "little")
    num_blocks, problem = 0, ""
    for _ in range(MAX_BOXES):
        header = read_at(file, position, 4)
        if header[:1] == b"\0":  # the last block, which has no size
            position += 1
            break
        if len(header) < 4 or header[0] not in VOC_BLOCKS:
            break
        num_blocks += header[0] in VOC_SOUND_BLOCKS
        position += 4 + int.from_bytes(header[1:], "little")
    if position > num_bytes:
        problem = f"is truncated: its header promises audio up to byte {position}, but the file ends at {num_bytes}"
    end = min(position, num_bytes)
    misread = "It has several blocks of sound or silence, whose headers would be heard" if num_blocks > 1 else ""
    return Extent(end, [Part(start, end, misread=misread)], problem)


def _boxes_end(start: int, num_bytes: int, end: int) -> Extent:
    problem = ""
    if end > num_bytes:
        problem = f"is truncated: its header promises audio up to byte {end}, but the file ends at {num_bytes}"
    return Extent(min(end, num_bytes), [Part(start, num_bytes)], problem)
