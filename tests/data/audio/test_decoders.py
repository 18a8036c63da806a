"""What reads recordings that libsndfile cannot, and what is said where nothing does."""

import io
import logging
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from audiollm.data.audio import AudioError, load_audio, probe_audio, stream_audio
from audiollm.data.audio.decoders import available_decoders
from audiollm.data.audio.decoders.base import DecodingError
from audiollm.data.audio.decoders.ffmpeg_program import open_with_program

from .recordings import RATE, recording

SPEECH_SECONDS = 2


@pytest.fixture
def av(monkeypatch):
    monkeypatch.setenv("PATH", "")  # no ffmpeg program, which would be asked first
    return pytest.importorskip("av")


def encoded_with(av, container, codec, rate=RATE):
    time = np.arange(SPEECH_SECONDS * rate) / rate
    frame = av.AudioFrame.from_ndarray((0.3 * np.sin(2 * np.pi * 330 * time)).astype(np.float32)[None], "fltp", "mono")
    frame.sample_rate, frame.pts = rate, 0
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        context = stream.codec_context
        converter = av.AudioResampler(context.format, "mono", rate, context.frame_size or 1024)
        for part in [*converter.resample(frame), *converter.resample(None), None]:
            output.mux(stream.encode(part))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *(("ipod", "aac"), ("ipod", "alac"), ("adts", "aac"), ("latm", "aac"), ("matroska", "flac"), ("wv", "wavpack")),
        *(("mov", "aac"), ("flv", "aac"), ("tta", "tta")),
    ],
)
def test_pyav_reads_what_libsndfile_cannot(av, container, codec, tmp_path):
    content = encoded_with(av, container, codec)
    path = tmp_path / "clip"
    path.write_bytes(content)
    info = probe_audio(path)
    assert (info.decoder, info.sample_rate, info.num_channels) == ("PyAV", RATE, 1)
    assert 0 <= info.num_samples - SPEECH_SECONDS * RATE < 2200
    waveform, _ = load_audio(path)
    assert len(waveform) == info.num_samples
    assert 0.25 < waveform.abs().max() < 0.4
    for source in (content, io.BytesIO(content)):
        assert torch.equal(load_audio(source)[0], waveform)
    assert torch.equal(torch.cat(list(stream_audio(content, block_seconds=0.01))), waveform)
    assert torch.equal(load_audio(content, offset=0.5, duration=1)[0], waveform[8000:24_000])
    for share in (0.9, 0.5):
        with pytest.raises(AudioError):
            load_audio(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("container", "codec"), [("mpegts", "aac"), ("mpeg", "mp2"), ("ac3", "ac3"), ("asf", "mp2"), ("rm", "ac3")]
)
def test_no_beginning_of_a_whole_file_is_taken_for_a_cut(av, container, codec):
    content = encoded_with(av, container, codec, rate=48_000)
    assert probe_audio(content).duration_seconds >= SPEECH_SECONDS
    with pytest.raises(AudioError):
        load_audio(recording("HTK") + content)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "Opus", "AU"])
def test_another_file_behind_one_of_ffmpegs_formats_is_not_left_out(av, kind):
    content = encoded_with(av, "tta", "tta")
    with pytest.raises(AudioError, match=f"holds another file at byte {len(content)}, which would be lost"):
        load_audio(content + recording(kind))


def test_pyav_says_what_is_no_audio(av):
    with pytest.raises(AudioError, match=r"not audio.*PyAV says"):
        load_audio(bytes(range(1, 250)) * 20)


def test_without_any_decoder_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("audiollm.data.audio.decoders.choosing.importlib.util.find_spec", lambda name: None)
    with pytest.raises(AudioError, match=r"install ffmpeg or `pip install 'audiollm\[av\]'`"):
        load_audio(b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\0\x10mdat12345678")
    decoders = available_decoders()
    assert decoders["PyAV"].startswith("not installed")
    assert decoders["ffmpeg"].startswith("not found")
    assert "FLAC" in decoders["libsndfile"]


def test_which_decoder_reads_a_file_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, "audiollm.data.audio"):
        assert probe_audio(recording("FLAC")).decoder == "libsndfile"
    assert "FLAC PCM_16, read by libsndfile" in caplog.text


def test_what_ffmpeg_says_is_told_without_places_in_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\necho "[mov,mp4,m4a @ 0x55d0c0ffee00] moov atom not found" >&2\nexit 1\n')
    program.chmod(0o755)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with ExitStack() as stack, pytest.raises(DecodingError, match=r"^\[mov,mp4,m4a\] moov atom not found$"):
        open_with_program(str(program), str(tmp_path / "a.m4a"), "mov", stack)
