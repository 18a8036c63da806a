"""Small Opus files with the same bytes each time they are made."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import soundfile
from torch import Tensor

from audiollm.tokenizer.configuration import SAMPLE_RATE

# libsndfile maps its compression level 0 … 1 to 256 … 6 kbit/s per channel, linearly.
_MAX_BITRATE_BPS, _MIN_BITRATE_BPS = 256000, 6000
_PAGE_HEADER = struct.Struct("<4sBBqIIIB")
_SERIAL_OFFSET, _CHECKSUM_OFFSET = 14, 22


def encode_opus(waveform: Tensor, bitrate_bps: int, name: str) -> bytes:
    """Encodes speech or sound as Ogg Opus.

    The encoder draws a random stream number, which would make every build differ; it is replaced by one that depends on
    ``name`` only.

    Args:
        waveform: float32 ``[N]`` at 16 kHz.
        bitrate_bps: about this many bits per second, 6,000 to 256,000.
        name: what the stream number is made from, such as the clip's id.

    Returns:
        The file.

    Raises:
        ValueError: if the bit rate is out of range.
    """
    if not _MIN_BITRATE_BPS <= bitrate_bps <= _MAX_BITRATE_BPS:
        raise ValueError(f"bitrate_bps={bitrate_bps}: use {_MIN_BITRATE_BPS} to {_MAX_BITRATE_BPS}")
    level = (_MAX_BITRATE_BPS - bitrate_bps) / (_MAX_BITRATE_BPS - _MIN_BITRATE_BPS)
    file = io.BytesIO()
    # Clipped rather than wrapped: resampling may overshoot full scale by a little.
    samples = np.clip(waveform.numpy(), -1.0, 1.0)
    soundfile.write(file, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=level)
    return _with_serial(file.getvalue(), zlib.crc32(name.encode()))


def _with_serial(content: bytes, serial: int) -> bytes:
    """Gives every Ogg page (RFC 3533) a stream number and the checksum that goes with it."""
    pages = bytearray(content)
    offset = 0
    while offset < len(pages):
        num_segments = _PAGE_HEADER.unpack_from(pages, offset)[-1]
        body = offset + _PAGE_HEADER.size + num_segments
        end = body + sum(pages[offset + _PAGE_HEADER.size : body])
        struct.pack_into("<I", pages, offset + _SERIAL_OFFSET, serial)
        struct.pack_into("<I", pages, offset + _CHECKSUM_OFFSET, 0)
        struct.pack_into("<I", pages, offset + _CHECKSUM_OFFSET, _ogg_checksum(bytes(pages[offset:end])))
        offset = end
    return bytes(pages)


def _checksum_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ 0x04C11DB7 if value & 0x80000000 else value << 1
        table.append(value & 0xFFFFFFFF)
    return table


_TABLE = _checksum_table()


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the polynomial 0x04C11DB7, not reflected, no inversion: not the one of zlib."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[value >> 24 ^ byte]
    return value
