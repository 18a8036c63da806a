"""Bounds on what is decoded of a recording, counted on the way."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from audiollm.data.audio import AudioError, AudioLimitError, AudioLimits, load_audio
from audiollm.data.audio.opening import AudioStream

from .recordings import RATE, encoded, noise, recording

# A frame of AAC at 16 kHz, one channel, 64 bytes, which libsndfile leaves to ffmpeg.
ADTS_FRAME = bytes([0xFF, 0xF1, 0x60, 0x40, 64 >> 3, (64 & 7) << 5 | 0x1F, 0xFC]) + bytes(57)


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the blocks that decoders gave."""
    sizes: list[int] = []
    read = AudioStream.read

    def counted(stream: AudioStream, num_samples: int) -> np.ndarray:
        block = read(stream, num_samples)
        sizes.append(block.size)
        return block

    monkeypatch.setattr(AudioStream, "read", counted)
    return sizes


def of_unknown_length(num_samples: int) -> bytes:
    """FLAC whose header does not tell how many samples there are."""
    content = bytearray(encoded(np.zeros((num_samples, 1), np.float32), RATE, "FLAC", "PCM_16"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    content[26:42] = bytes(16)
    return bytes(content)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "Opus", "MP3", "Vorbis", "AIFF"])
def test_what_is_within_the_limits_is_as_without_them(kind):
    content = recording(kind)
    limits = AudioLimits(max_channels=2, max_decoded_bytes=1 << 20, max_decoding_seconds=600)
    waveform, rate = load_audio(content, limits=limits)
    expected, expected_rate = load_audio(content)
    assert rate == expected_rate
    np.testing.assert_array_equal(waveform, expected)


def test_what_the_header_promises_is_refused_before_it_is_decoded(num_decoded):
    content = encoded(noise(9000, 3))
    with pytest.raises(AudioLimitError, match="3 channels; at most 2"):
        load_audio(content, limits=AudioLimits(max_channels=2))
    with pytest.raises(AudioLimitError, match=r"more than 107999 bytes when it is decoded"):
        load_audio(content, limits=AudioLimits(max_decoded_bytes=4 * 3 * 9000 - 1))
    with pytest.raises(AudioLimitError, match=r"0\.5625 s of audio; at most 0\.5 s"):
        load_audio(content, max_seconds=0.5)
    assert not num_decoded
    load_audio(content, limits=AudioLimits(max_decoded_bytes=4 * 3 * 9000, max_channels=3))


def test_what_no_header_tells_is_counted_while_it_is_decoded(num_decoded):
    content = of_unknown_length(1 << 23)
    assert len(content) < 1 << 18
    with pytest.raises(AudioLimitError, match="more than 1000000 bytes"):
        load_audio(content, limits=AudioLimits(max_decoded_bytes=1_000_000))
    with pytest.raises(AudioLimitError, match=r"holds more of audio; at most 10 s"):
        load_audio(content, max_seconds=10)
    assert sum(num_decoded) <= 1 << 20  # a block, in the second case; the first one's was refused as it came


def test_damage_is_no_way_around_the_limits():
    content = recording("Opus", 90_000)[:-100]
    with pytest.raises(AudioLimitError):
        load_audio(content, on_damaged="take", limits=AudioLimits(max_decoded_bytes=10_000))
    with pytest.raises(AudioLimitError):
        load_audio(content, on_damaged="take", max_seconds=1)


@pytest.mark.parametrize("first_output", ["", "header"])
@pytest.mark.parametrize("on_damaged", ["raise", "take"])
def test_a_program_that_never_answers_is_ended(tmp_path: Path, monkeypatch, first_output, on_damaged):
    header = b".snd" + struct.pack(">5I", 24, 0xFFFFFFFF, 6, RATE, 1)
    (tmp_path / "header").write_bytes(header if first_output else b"")
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n/bin/cat {tmp_path}/header\nexec /bin/sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioLimitError, match=r"takes longer than 0\.5 s to decode"):
        load_audio(ADTS_FRAME * 100, on_damaged=on_damaged, limits=AudioLimits(max_decoding_seconds=0.5))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_many_joined_files_take_no_longer_than_is_allowed():
    content = encoded(noise(10)) * 500
    with pytest.raises(AudioLimitError, match="takes longer"):
        load_audio(content, limits=AudioLimits(max_decoding_seconds=1e-9))


@pytest.mark.parametrize("start", [b"", "Opus", "FLAC", "WAV"])
def test_marks_without_pages_keep_nobody_busy(start):
    """Each of a million marks used to be looked for in a megabyte of its own: minutes of work for 5 MB."""
    content = (recording(start) if start else b"") + b"OggS\0" * 1_000_000
    with pytest.raises(AudioError, match=r"is damaged|checksum"):
        load_audio(content)


def test_frames_among_junk_keep_nobody_busy():
    """The same of pairs of MP3 frames with a byte between them."""
    frame = bytes([0xFF, 0xF3, 0x14, 0xC4]) + bytes(20)
    with pytest.raises(AudioError, match=r"is damaged|may be sound"):
        load_audio((2 * frame + b"\1") * 100_000)


@pytest.mark.parametrize(
    "values", [{"max_channels": 0}, {"max_decoded_bytes": -1}, {"max_decoding_seconds": float("nan")}]
)
def test_limits_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}=.*positive"):
        AudioLimits(**values)
