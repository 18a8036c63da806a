"""Segments of recordings: the slice of the whole, whatever the format, in memory that the segment bounds."""

import contextlib
import io
import re
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.data.audio import AudioError, load_audio, probe_audio, resample, stream_audio

from .recordings import FORMATS, RATE, encoded, noise, recording

SOURCES = {kind: recording(kind, 9000) for kind in FORMATS}
WHOLES = {kind: load_audio(source) for kind, source in SOURCES.items()}


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(FORMATS)),
    offset=st.floats(0, 0.5),
    duration=st.one_of(st.none(), st.floats(1e-5, 0.5)),
    block_seconds=st.floats(0.01, 1),
)
def test_a_segment_is_the_slice_of_the_whole(kind, offset, duration, block_seconds):
    whole, rate = WHOLES[kind]
    first = round(offset * rate)
    end = len(whole) if duration is None else first + max(1, round(duration * rate))
    if end > len(whole) or first >= len(whole):
        return
    segment, _ = load_audio(SOURCES[kind], offset=offset, duration=duration)
    assert torch.equal(segment, whole[first:end])
    blocks = list(stream_audio(SOURCES[kind], block_seconds=block_seconds, offset=offset, duration=duration))
    assert torch.equal(torch.cat(blocks), segment)
    assert probe_audio(SOURCES[kind], offset=offset, duration=duration).num_samples == len(segment)
    half, _ = load_audio(SOURCES[kind], rate // 2, offset=offset, duration=duration)
    assert torch.equal(half, resample(segment, rate, rate // 2))


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_segments_at_the_edges_are_exact(kind):
    whole, rate = WHOLES[kind]
    seconds, half = len(whole) / rate, len(whole) // 2
    for offset, duration, first, end in (
        (0, seconds, 0, None),
        (0, 1e-9, 0, 1),
        (1e-9, None, 0, None),
        (seconds - 1 / rate, None, len(whole) - 1, None),
        (seconds - 1 / rate, 1 / rate, len(whole) - 1, None),
        (half / rate, (len(whole) - half) / rate, half, None),
    ):
        assert torch.equal(load_audio(SOURCES[kind], offset=offset, duration=duration)[0], whole[first:end])
    for offset, duration in ((seconds, None), (seconds + 1, 0.1), (0, seconds + 0.1), (1e300, None), (0, 1e300)):
        with pytest.raises(AudioError, match="a segment from"):
            load_audio(SOURCES[kind], offset=offset, duration=duration)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_segments_of_long_recordings_are_exact(kind):
    samples = noise(400_000) * np.repeat(np.random.default_rng(1).random((800, 1)), 500, 0)
    content = encoded(samples.astype(np.float32), format=kind)
    whole, _ = load_audio(content)
    for first in np.random.default_rng(2).integers(0, 390_000, 60).tolist():
        assert torch.equal(load_audio(content, offset=first / RATE, duration=0.5)[0], whole[first : first + 8000])


def test_segments_go_across_the_seams_of_joined_files():
    joined = SOURCES["MP3"] + SOURCES["MP3"]
    whole, _ = load_audio(joined)
    assert torch.equal(load_audio(joined, offset=0.5, duration=0.2)[0], whole[8000:11_200])
    assert torch.equal(load_audio(joined, offset=0.9)[0], whole[14_400:])


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "Vorbis", "MP3"])
def test_a_segment_behind_the_end_names_both_lengths(kind):
    source = SOURCES[kind]  # 0.5625 s
    for read in (load_audio, probe_audio, lambda *args, **options: list(stream_audio(*args, **options))):
        with pytest.raises(
            AudioError, match=re.escape("lasts 0.5625 s, but a segment from 0.5 s to 0.75 s is asked for")
        ):
            read(source, offset=0.5, duration=0.25)
        with pytest.raises(AudioError, match=re.escape("lasts 0.5625 s, but a segment from 2 s to its end is asked")):
            read(source, offset=2)
        with pytest.raises(AudioError, match="lasts"):
            read(source, offset=1e308, duration=1e308)


def test_a_duration_may_be_rounded_up_by_a_sample():
    assert len(load_audio(SOURCES["WAV"], duration=9001 / RATE)[0]) == 9000
    with pytest.raises(AudioError, match="lasts"):
        load_audio(SOURCES["WAV"], duration=9002 / RATE)


@pytest.mark.parametrize(
    "options",
    [{"offset": -0.1}, {"offset": float("nan")}, {"duration": 0}, {"duration": -1}, {"duration": float("inf")}],
)
def test_seconds_that_make_no_sense_are_named(options):
    (name,) = options
    for read in (load_audio, probe_audio, stream_audio):
        with pytest.raises(ValueError, match=f"{name}="):
            read(SOURCES["WAV"], **options)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "Opus"])
def test_a_recording_that_is_too_long_is_refused(kind):
    source = SOURCES[kind]
    assert torch.equal(load_audio(source, max_seconds=0.5625)[0], WHOLES[kind][0])
    with pytest.raises(AudioError, match=re.escape("0.5625 s of audio; at most 0.5 s are taken here")):
        load_audio(source, max_seconds=0.5)
    with pytest.raises(AudioError, match="at most"):
        list(stream_audio(source, max_seconds=0.5))
    assert len(load_audio(source, max_seconds=0.5, duration=0.25)[0]) == RATE // 4
    with pytest.raises(ValueError, match="max_seconds=0"):
        load_audio(source, max_seconds=0)


def test_no_memory_is_taken_for_what_is_too_long(tmp_path):
    """An hour of silence in a small FLAC file, one whose header does not tell its length, and one of 8 channels."""
    hour = encoded(np.zeros(3600 * 8000, np.int16), 8000, "FLAC")
    unknown = bytearray(hour)
    unknown[8 + 13] &= 0xF0
    unknown[8 + 14 : 8 + 18] = bytes(4)
    wide = bytearray(encoded(np.zeros((200_000, 8), np.int16), 96_000, "FLAC"))
    wide[8 + 10 : 8 + 13] = (655_350 << 4 | wide[8 + 12] & 15).to_bytes(3, "big")  # 20 bits of the rate
    tracemalloc.start()
    for content in (hour, bytes(unknown)):
        with pytest.raises(AudioError, match="at most 30 s"):
            load_audio(content, 16_000, max_seconds=30)
        assert len(load_audio(content, offset=1800, duration=1)[0]) == 8000
    with contextlib.suppress(AudioError):  # its frames speak of another rate
        load_audio(bytes(wide))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6


def test_seconds_are_those_of_the_recording_and_not_of_what_is_made_of_it():
    content = encoded(noise(44_100), 44_100)
    segment, rate = load_audio(io.BytesIO(content), 16_000, offset=0.25, duration=0.5)
    assert (len(segment), rate) == (8000, 16_000)


def test_a_header_that_promises_years_costs_nothing():
    content = bytearray(encoded(noise(1000), format="FLAC"))
    content[8 + 13 : 8 + 18] = bytes([content[8 + 13] | 0x0F]) + b"\xff" * 4
    tracemalloc.start()
    with pytest.raises(AudioError):
        load_audio(bytes(content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
