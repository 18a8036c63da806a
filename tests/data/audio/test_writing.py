"""Audio that is written: read back as it was, whole or not at all, refused with a reason."""

import logging
import os
import resource

import numpy as np
import pytest
import torch

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.audio.writing import open_audio_output, open_audio_pipe, save_audio


def tone(num_samples=8000, sample_rate=16000, amplitude=0.5):
    return amplitude * torch.sin(2 * torch.pi * 440 / sample_rate * torch.arange(num_samples))


@pytest.mark.parametrize(("extension", "expected"), [("wav", "WAV PCM_16"), ("flac", "FLAC PCM_16"), ("OGG", "OGG")])
def test_the_extension_chooses_the_format_and_the_sound_comes_back(tmp_path, extension, expected):
    path = tmp_path / f"tone.{extension}"
    save_audio(path, tone(), 16000)
    info = probe_audio(path)
    assert info.format.startswith(expected)
    assert (info.sample_rate, info.num_channels, info.num_samples) == (16000, 1, 8000)
    tolerance = 0.02 if extension == "OGG" else 2**-15
    torch.testing.assert_close(load_audio(path)[0], tone(), atol=tolerance, rtol=0)


def test_sixteen_bits_survive_bit_by_bit(tmp_path):
    every_value = torch.arange(-32768, 32768) / 32768
    for extension in ("wav", "flac"):
        save_audio(tmp_path / f"a.{extension}", every_value, 22050)
        assert torch.equal(load_audio(tmp_path / f"a.{extension}")[0], every_value)


def test_blocks_give_the_same_file_as_one_piece(tmp_path):
    waveform = tone(150_000)
    save_audio(tmp_path / "whole.wav", waveform, 22050)
    with open_audio_output(tmp_path / "blocks.wav", 22050) as writer:
        for block in waveform.split(777):
            writer.write(block)
            writer.write(block[:0])
        assert writer.num_samples == len(waveform)
        assert not (tmp_path / "blocks.wav").exists()
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_ten_minutes_of_ogg_are_written(tmp_path):
    save_audio(tmp_path / "long.ogg", torch.zeros(8000 * 600), 8000)
    assert probe_audio(tmp_path / "long.ogg").duration_seconds == 600


@pytest.mark.parametrize("given", [tone()[None], tone().double(), tone().half(), tone().numpy(), tone().bfloat16()])
def test_other_float_types_and_one_channel_are_taken(tmp_path, given):
    save_audio(tmp_path / "a.wav", given, 16000)
    torch.testing.assert_close(load_audio(tmp_path / "a.wav")[0], tone(), atol=4e-3, rtol=0)


def test_gradients_do_not_stop_a_waveform_from_being_saved(tmp_path):
    save_audio(tmp_path / "a.wav", tone().requires_grad_(), 16000)
    assert (tmp_path / "a.wav").exists()


def test_loud_samples_are_clipped_not_wrapped_and_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        save_audio(tmp_path / "a.wav", torch.tensor([0.0, 1.5, -3.0]), 16000)
    assert load_audio(tmp_path / "a.wav")[0].tolist() == [0.0, 32767 / 32768, -1.0]
    assert "clipped 2 of 3 samples" in caplog.text


@pytest.mark.parametrize(
    ("name", "waveform", "rate", "message"),
    [
        ("a.m4a", tone(), 16000, r"a\.m4a: ends in '\.m4a'; name the file \.wav, \.flac, \.ogg, \.opus, \.mp3"),
        ("a", tone(), 16000, r"ends in ''"),
        ("no/a.wav", tone(), 16000, r"no folder .*no; make it first"),
        ("a.wav", torch.zeros(0), 16000, r"no samples to write"),
        ("a.wav", torch.tensor([0.0, float("nan")]), 16000, r"sample 1 is nan"),
        ("a.wav", torch.full((3,), float("inf")), 16000, r"sample 0 is inf"),
        ("a.wav", torch.zeros(2, 50), 16000, r"shape \[2, 50\]; give one channel"),
        ("a.wav", torch.zeros(50, dtype=torch.int16), 16000, r"waveform is int16; give floats"),
        ("a.wav", tone(), 0, r"sample_rate=0: give a positive"),
        ("a.wav", tone(), 22050.0, r"sample_rate=22050\.0"),
        ("a.flac", tone(), 2_000_000, r"cannot be written as FLAC at 2000000 Hz"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, waveform, rate, message):
    with pytest.raises(ValueError, match=message):
        save_audio(tmp_path / name, waveform, rate)
    assert os.listdir(tmp_path) == []


def test_a_directory_is_not_overwritten(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError, match="is a directory"):
        save_audio(tmp_path / "a.wav", tone(), 16000)


def test_a_failure_leaves_the_older_file(tmp_path):
    save_audio(tmp_path / "a.wav", tone(), 16000)
    before = (tmp_path / "a.wav").read_bytes()

    def write_half():
        with open_audio_output(tmp_path / "a.wav", 16000) as writer:
            writer.write(np.zeros(100, dtype=np.float32))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert (tmp_path / "a.wav").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("limit", [100, 20_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, extension, limit):
    noise = 0.3 * torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_audio(tmp_path / f"a.{extension}", noise, 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("extension", ["mp3", "opus"])
def test_lossy_files_sound_the_same_at_a_rate_that_they_know(tmp_path, extension, rate):
    path = tmp_path / f"tone.{extension}"
    waveform = tone(rate * 2, rate)
    save_audio(path, waveform, rate)
    info = probe_audio(path)
    assert info.sample_rate >= rate if extension == "opus" else info.sample_rate == rate
    assert info.duration_seconds == pytest.approx(2, abs=0.1)
    heard = load_audio(path, rate)[0]
    spectrum = torch.fft.rfft(heard[: rate // 2 * 2]).abs()
    assert spectrum.argmax().item() == pytest.approx(440 * len(heard[: rate // 2 * 2]) / rate, abs=2)
    assert heard[rate // 2 : rate].abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("extension", ["mp3", "opus"])
def test_blocks_of_what_is_resampled_lose_nothing(tmp_path, extension):
    waveform = tone(150_000, 22050)
    save_audio(tmp_path / f"whole.{extension}", waveform, 22050)
    with open_audio_output(tmp_path / f"blocks.{extension}", 22050) as writer:
        for block in waveform.split(777):
            writer.write(block)
        assert writer.num_samples == len(waveform)
    whole, blocks = (load_audio(tmp_path / f"{name}.{extension}")[0] for name in ("whole", "blocks"))
    assert len(whole) == len(blocks)
    torch.testing.assert_close(blocks, whole, atol=0.02, rtol=0)


def test_a_rate_above_all_of_a_format_is_refused(tmp_path):
    with pytest.raises(AudioError, match="cannot be written as MP3 at 96000 Hz"):
        save_audio(tmp_path / "a.mp3", tone(), 96000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_live", [True, False])
def test_a_pipe_gets_wav_that_is_read_whole(tmp_path, is_live):
    pipe = OneWay()
    with open_audio_pipe(pipe, 22050, is_live=is_live) as writer:
        for block in tone(50_000, 22050).split(7000):
            writer.write(block)
            assert bool(pipe.contents) == is_live
    save_audio(tmp_path / "a.wav", tone(50_000, 22050), 22050)
    assert torch.equal(load_audio(bytes(pipe.contents))[0], load_audio(tmp_path / "a.wav")[0])
    assert is_live or pipe.contents == (tmp_path / "a.wav").read_bytes()


@pytest.mark.parametrize("is_live", [True, False])
def test_nothing_in_a_pipe_is_an_error(is_live):
    with pytest.raises(AudioError, match="no samples"), open_audio_pipe(OneWay(), 22050, is_live=is_live):
        pass


class OneWay:
    """A pipe: it can be written to and nothing else."""

    def __init__(self):
        self.contents = bytearray()

    def write(self, data):
        self.contents += data
        return len(data)

    def flush(self):
        pass
