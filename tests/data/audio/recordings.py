"""Small recordings in every format, made in memory, and ways to damage them."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
# libsndfile's container and encoding of every format that it writes.
FORMATS = {
    "WAV": ("WAV", "PCM_16"),
    "WAV float": ("WAV", "FLOAT"),
    "WAV mu-law": ("WAV", "ULAW"),
    "WAV IMA ADPCM": ("WAV", "IMA_ADPCM"),
    "WAV MS ADPCM": ("WAV", "MS_ADPCM"),
    "WAV GSM": ("WAV", "GSM610"),
    "WAVEX": ("WAVEX", "PCM_16"),
    "RF64": ("RF64", "PCM_16"),
    "W64": ("W64", "PCM_16"),
    "AIFF": ("AIFF", "PCM_16"),
    "CAF": ("CAF", "PCM_16"),
    "CAF ALAC": ("CAF", "ALAC_16"),
    "AU": ("AU", "PCM_16"),
    "FLAC": ("FLAC", "PCM_16"),
    "Vorbis": ("OGG", "VORBIS"),
    "Opus": ("OGG", "OPUS"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
    "SPHERE": ("NIST", "PCM_16"),
    "SVX": ("SVX", "PCM_16"),
    "HTK": ("HTK", "PCM_16"),
    "VOC": ("VOC", "PCM_16"),
    "AVR": ("AVR", "PCM_16"),
    "MPC2K": ("MPC2K", "PCM_16"),
    "WVE": ("WVE", "ALAW"),
    "SDS": ("SDS", "PCM_16"),
    "MAT4": ("MAT4", "PCM_16"),
    "MAT5": ("MAT5", "PCM_16"),
    "IRCAM": ("IRCAM", "PCM_16"),
    "PVF": ("PVF", "PCM_16"),
    "PAF": ("PAF", "PCM_16"),
    "XI": ("XI", "DPCM_16"),
}
# Formats whose bytes say nowhere how long the sound should be, so that a cut leaves a shorter whole.
LENGTH_NOT_TOLD = ("IRCAM", "PVF", "PAF", "XI")
_ONE_CHANNEL = ("HTK", "WVE", "XI", "WAV GSM", "SVX", "SDS", "MP3")
_EIGHT_KHZ = ("WVE", "WAV GSM")


def noise(num_samples: int, num_channels: int = 1, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    samples = 0.25 * generator.standard_normal((num_samples, num_channels))
    return samples.clip(-0.99, 0.99).astype(np.float32)


def encoded(samples: np.ndarray, sample_rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=format, subtype=subtype)
    return file.getvalue()


def recording(kind: str, num_samples: int = 9000, seed: int = 0) -> bytes:
    """A file of one of ``FORMATS``."""
    num_channels = 1 if kind in _ONE_CHANNEL else 2
    return encoded(noise(num_samples, num_channels, seed), 8000 if kind in _EIGHT_KHZ else RATE, *FORMATS[kind])


def as_every_source(content: bytes, path: Path) -> Iterator[str | bytes | io.BytesIO]:
    path.write_bytes(content)
    yield str(path)
    yield content
    yield io.BytesIO(content)


def damaged(content: bytes, others: list[bytes], choices: random.Random) -> bytes:
    """One fault of those that files have: cut, flipped, overwritten, moved, left out, put in, appended."""
    data = bytearray(content)
    place = choices.randrange(len(data))
    length = choices.randrange(1, 2000)
    match choices.randrange(8):
        case 0:
            return bytes(data[: max(1, place)])
        case 1:
            data[place] ^= 1 << choices.randrange(8)
        case 2:
            data[place % 200] = choices.randrange(256)
        case 3:
            fields = (
                bytes(4),
                b"\xff" * 4,
                b"\x7f\xff\xff\xff",
                b"\0\0\0\x80",
                struct.pack("<I", choices.getrandbits(32)),
            )
            data[place % 120 : place % 120 + 4] = choices.choice(fields)
        case 4:
            other = choices.randrange(len(data))
            data[place : place + length], data[other : other + length] = (
                data[other : other + length],
                data[place : place + length],
            )
        case 5:
            del data[place : place + length]
        case 6:
            data[place:place] = choices.randbytes(length)
        case 7:
            return content + choices.choice([choices.randbytes(length), content, choices.choice(others), bytes(300)])
    return bytes(data) or b"\0"
