"""Recordings of strangers, within limits."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.chat.input import audio_parts
from audiollm.serving.sound import (
    FORMATS,
    LargeUploadError,
    SoundEncoder,
    UnreadableUploadError,
    UploadBuffer,
    UploadError,
    UploadLimits,
    decode_base64,
    encode_whole,
    read_upload,
)

RATE = 16_000
LIMITS = UploadLimits()
SMALL = UploadLimits(max_bytes=1 << 16, max_decoded_bytes=1 << 20, max_seconds=5, max_channels=2)


def noise(num_samples: int, num_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (num_samples, num_channels)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def wav_with_header(rate: int, num_channels: int, data: bytes, size: int | None = None, bits: int = 16) -> bytes:
    frame = num_channels * bits // 8
    fields = struct.pack("<HHIIHH", 1, num_channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    size = len(data) if size is None else size
    header = struct.pack("<4sI4s4sI", b"RIFF", min(36 + size, 0xFFFFFFFF), b"WAVE", b"fmt ", 16)
    return header + fields + struct.pack("<4sI", b"data", size) + data


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_ordinary_recordings_are_read(format, subtype):
    recording = read_upload(encoded(noise(RATE), RATE, format, subtype), LIMITS)
    assert recording.waveform.dtype == torch.float32
    assert recording.waveform.shape == (RATE,)
    assert (recording.sample_rate, recording.duration_seconds) == (RATE, 1.0)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pcm"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_the_server_sends_it_also_takes(name, is_streamed):
    if FORMATS[name].needs_pyav:
        pytest.importorskip("av")
    samples = noise(24_000)[:, 0]
    if is_streamed:
        with SoundEncoder(name) as encoder:
            data = encoder.write(samples) + encoder.close()
    else:
        data = encode_whole(samples, name)
    assert read_upload(data, LIMITS).duration_seconds == pytest.approx(1, abs=0.15)


def test_one_channel_is_heard_or_their_mean_and_one_sample_is_a_recording():
    samples = noise(1, 2)
    data = encoded(samples, subtype="FLOAT")
    np.testing.assert_allclose(read_upload(data, LIMITS).waveform, samples[:, 0])
    np.testing.assert_allclose(read_upload(data, LIMITS, mono="mean").waveform, samples.mean(axis=1))


def test_a_recording_goes_where_recordings_go():
    recording = read_upload(encoded(noise(1000)), LIMITS)
    (part,) = audio_parts(recording)
    assert part.sampling_rate == RATE
    np.testing.assert_array_equal(part.array, recording.waveform)


# --- what is not audio, or not all of it ------------------------------------------------------------------------------


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("speech.wav", encoded(noise(1000)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\0", ""),
        (b"RIFF", ""),
        (b"What is said is not sound. " * 40, ""),
        (json.dumps({"audio": [0.1] * 100}).encode(), "JSON"),
        (b"<!doctype html><title>404</title>", "web page"),
        (zipped(), "zip archive|another file"),
        (b"%PDF-1.7 " + bytes(1000), "PDF"),
        (bytes(5000), ""),
        (encoded(noise(0)), r"no samples|0 s"),
        (wav_with_header(RATE, 1, b""), r"no samples|0 s"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", ""),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", ""),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", ""),
    ],
)
def test_what_is_no_audio_is_refused(data, reason):
    with pytest.raises(UnreadableUploadError, match=rf"^file: .*({reason})") as caught:
        read_upload(data, LIMITS, "file")
    assert (caught.value.status, caught.value.code) == (400, "invalid_audio")
    assert isinstance(caught.value, UploadError)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_recordings_are_refused(format, subtype, share):
    data = encoded(noise(2 * RATE), RATE, format, subtype)
    with pytest.raises(UnreadableUploadError):
        read_upload(data[: int(share * len(data))], LIMITS)


def test_undefined_samples_are_refused():
    samples = noise(100)
    samples[7] = np.nan
    with pytest.raises(UnreadableUploadError, match="nan"):
        read_upload(encoded(samples, subtype="FLOAT"), LIMITS)


def test_a_name_is_only_a_name(tmp_path: Path):
    """Neither a path in the name nor one in the content reaches a file."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encoded(noise(1000)))
    for data in (str(secret).encode(), f"file:{secret}".encode(), f"#EXTM3U\n{secret}\n".encode()):
        with pytest.raises(UnreadableUploadError):
            read_upload(data, LIMITS, str(secret))


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"RIFF", b"OggS\0", b"fLaC\0\0\0\x22", b"ID3\4", b"\xff\xfb\x90\0", b".snd"]),
)
def test_any_bytes_are_a_recording_or_an_upload_error(data, start):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # an ffmpeg program for each of them would take long; PyAV is asked, if it is there
        try:
            recording = read_upload(start + data, SMALL)
        except UploadError:
            return
    assert recording.duration_seconds <= SMALL.max_seconds


# --- what is too large ------------------------------------------------------------------------------------------------


def test_too_many_bytes_are_refused():
    data = encoded(noise(40_000))
    with pytest.raises(LargeUploadError, match=r"^file: is larger than 65536 bytes") as caught:
        read_upload(data, SMALL, "file")
    assert (caught.value.status, caught.value.code) == (413, "audio_too_large")


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "OPUS"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_few_bytes_of_long_silence_are_refused(format, subtype):
    """What fits into a message may last for hours."""
    data = encoded(np.zeros((60 * RATE, 1), np.float32), RATE, format, subtype)
    for limits in (UploadLimits(max_seconds=30), UploadLimits(max_decoded_bytes=1 << 20)):
        with pytest.raises(LargeUploadError):
            read_upload(data, limits)


def test_long_aac_whose_length_no_header_tells_is_refused():
    pytest.importorskip("av")
    data = encode_whole(np.zeros(60 * 24_000, np.float32), "aac")
    assert len(data) < 1 << 19
    for limits in (UploadLimits(max_seconds=30), UploadLimits(max_decoded_bytes=1 << 20)):
        with pytest.raises(LargeUploadError):
            read_upload(data, limits)


def test_more_channels_than_allowed_are_refused():
    with pytest.raises(LargeUploadError, match="3 channels; at most 2"):
        read_upload(encoded(noise(100, 3)), SMALL)


@pytest.mark.parametrize("rate", [0, 1, 999, 4_000_000, 0xFFFFFFFF])
def test_a_forged_rate_is_refused(rate):
    with pytest.raises(UploadError):
        read_upload(wav_with_header(rate, 1, bytes(30_000)), SMALL)


def test_a_high_rate_does_not_hide_how_much_there_is():
    """With 192 kHz and eight channels an hour's bytes pass for seconds; they are counted as bytes."""
    data = wav_with_header(192_000, 8, bytes(1 << 20), bits=8)
    limits = UploadLimits(max_decoded_bytes=1 << 21)
    with pytest.raises(LargeUploadError, match="when it is decoded"):
        read_upload(data, limits)


def test_a_low_rate_makes_it_long():
    with pytest.raises(LargeUploadError, match="at most 5 s"):
        read_upload(wav_with_header(2000, 1, bytes(40_000)), SMALL)


@pytest.mark.parametrize("num_channels", [0, 255, 1000, 65_535])
def test_forged_channels_are_refused(num_channels):
    with pytest.raises(UploadError):
        read_upload(wav_with_header(RATE, num_channels, bytes(20_000)), SMALL)


@pytest.mark.parametrize("size", [20_002, 1 << 30])
def test_a_header_that_promises_more_than_there_is_is_refused(size):
    with pytest.raises(UnreadableUploadError, match="truncated"):
        read_upload(wav_with_header(RATE, 1, bytes(20_000), size), SMALL)


@pytest.mark.parametrize("total", [1 << 20, (1 << 36) - 1])
def test_flac_that_promises_hours_is_refused_without_them(total):
    data = bytearray(encoded(noise(1000), RATE, "FLAC"))
    packed = int.from_bytes(data[18:26], "big") & ~((1 << 36) - 1) | total
    data[18:26] = packed.to_bytes(8, "big")
    with pytest.raises(UploadError):
        read_upload(bytes(data), SMALL)


@pytest.mark.parametrize(
    "limit", ["max_bytes", "max_decoded_bytes", "max_seconds", "max_channels", "max_decoding_seconds"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True])
def test_limits_are_positive_numbers(limit, value):
    with pytest.raises(ValueError, match=f"{limit}="):
        UploadLimits(**{limit: value})


# --- as it arrives ----------------------------------------------------------------------------------------------------


def test_pieces_are_gathered():
    data = encoded(noise(1000))
    buffer = UploadBuffer(SMALL)
    for start in range(0, len(data), 100):
        buffer.add(data[start : start + 100])
    np.testing.assert_array_equal(buffer.read().waveform, read_upload(data, SMALL).waveform)


def test_gathering_stops_at_the_limit():
    buffer = UploadBuffer(UploadLimits(max_bytes=1000), "file")
    buffer.add(bytes(1000))
    with pytest.raises(LargeUploadError, match=r"^file: is larger than 1000 bytes"):
        buffer.add(b"\0")


# --- base64 -----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=100))
def test_base64_comes_back(data):
    assert decode_base64(base64.b64encode(data).decode(), LIMITS) == data


@pytest.mark.parametrize("num_bytes", [998, 999, 1000])
def test_base64_up_to_the_limit_is_taken(num_bytes):
    limits = UploadLimits(max_bytes=num_bytes)
    assert len(decode_base64(base64.b64encode(bytes(num_bytes)).decode(), limits)) == num_bytes
    with pytest.raises(LargeUploadError, match=f"larger than {num_bytes} bytes"):
        decode_base64(base64.b64encode(bytes(num_bytes + 1)).decode(), limits)


def test_too_much_base64_is_not_decoded(monkeypatch):
    monkeypatch.setattr(base64, "b64decode", None)
    with pytest.raises(LargeUploadError):
        decode_base64("A" * (1 << 20), SMALL)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("data:audio/wav;base64,UklGRg==", "data URL"),
        ("DATA:;base64,UklGRg==", "data URL"),
        ("UklG\nRg==", "white space, at character 4"),
        (" UklGRg==", "white space, at character 0"),
        ("UklG_-==", "not that of URLs"),
        ("Ukl\u00e9Rg==", "it holds 'é' at character 3"),
        ("UklG\0g==", "is not base64"),
        ("UklGRg", "not all of it"),
        ("UklGRg=", "not all of it"),
        ("A", "not all of it"),
        ("====", "is not base64"),
        ("YWI=YWI=", "is not base64"),
        ("YQ==YQ==", "is not base64"),
        ("YWJj=", "is not base64"),
        ("YWJj====", "is not base64"),
    ],
)
def test_other_texts_are_refused_with_what_they_are(text, reason):
    with pytest.raises(UnreadableUploadError, match=f"^data: .*{reason}"):
        decode_base64(text, LIMITS, "data")
