"""Columns of the training data: speaker vectors (sizes, silence, an encoder of one's own) and fundamentals."""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from audiollm.data.audio.pitch import load_pyworld
from audiollm.data.voices.encoders import register_speaker_encoder
from audiollm.tokenizer.decoder.configuration import FlowConfig, WaveformDecoderConfig
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.columns import pitch_column, pitch_of_frames, speaker_column
from audiollm.training.decoder.shards import DecoderItem

needs_pyworld = pytest.mark.skipif(find_spec("pyworld") is None, reason="needs pyworld")
MEL = MelConfig()


class Loudness:
    """Describes a voice by its loudness; knows nothing of silence."""

    embedding_size = 4

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        if not waveform.any():
            raise ValueError("there is no sound")
        return waveform.abs().mean().expand(4) * sample_rate


@pytest.fixture(autouse=True)
def loudness() -> None:
    register_speaker_encoder("loudness", lambda device: Loudness(), replace=True)


def item(level: float) -> DecoderItem:
    return DecoderItem("clip", torch.zeros(3, dtype=torch.long), torch.full((100,), level), torch.zeros(80, 4))


def test_the_column_holds_what_the_encoder_says_of_the_waveform() -> None:
    column = speaker_column("loudness", WaveformDecoderConfig(flow=FlowConfig(speaker_size=4)))
    assert column.name == "speaker"
    torch.testing.assert_close(column.compute(item(0.5)), torch.full((4,), 0.5 * 22050))


def test_silence_becomes_the_neutral_voice_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    column = speaker_column("loudness", WaveformDecoderConfig(flow=FlowConfig(speaker_size=4)))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(column.compute(item(0.0)), torch.zeros(4))
    assert "clip: the neutral voice" in caplog.text


def test_an_encoder_that_does_not_fit_the_decoder_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"vectors of 4, but decoder\.flow\.speaker_size=192"):
        speaker_column("loudness", WaveformDecoderConfig())


def test_encoders_differ_in_what_is_stored() -> None:
    config = WaveformDecoderConfig(flow=FlowConfig(speaker_size=4))
    register_speaker_encoder("louder", lambda device: Loudness(), replace=True)
    assert speaker_column("loudness", config).settings != speaker_column("louder", config).settings


def voice(frequency_N: torch.Tensor) -> torch.Tensor:
    """Ten harmonics of a frequency that changes over time."""
    cycles = torch.cumsum(frequency_N.double() / MEL.sample_rate, dim=0)
    return sum(torch.sin(2 * math.pi * k * cycles) / k for k in range(1, 11)).float() * 0.1


@needs_pyworld
@pytest.mark.parametrize("method", ["dio", "harvest"])
def test_it_finds_the_frequency_at_the_middle_of_each_frame(method):
    num_samples = 86 * MEL.hop_length + 100
    frequency = torch.linspace(120, 320, num_samples)  # 2.3 Hz a frame
    found = pitch_of_frames(voice(frequency), MEL, method=method)
    assert found.shape == (86,)
    assert found.dtype == torch.float32
    middles = frequency[MEL.hop_length // 2 :: MEL.hop_length][:86]
    error = (found - middles)[5:-5]
    assert error.abs().max() < 2.0
    assert abs(error.mean()) < 0.6  # half a frame off would be 1.2


@needs_pyworld
def test_silence_and_noise_are_unvoiced():
    assert pitch_of_frames(torch.zeros(20 * 256), MEL).tolist() == [0.0] * 20
    noise = 0.1 * torch.randn(100 * 256, generator=torch.Generator().manual_seed(0))
    assert (pitch_of_frames(noise, MEL) > 0).float().mean() < 0.2


@needs_pyworld
def test_frequencies_outside_the_range_are_not_found():
    tone = voice(torch.full((50 * 256,), 150.0))
    assert (pitch_of_frames(tone, MEL, min_frequency=100.0)[5:-5] > 0).all()
    found = pitch_of_frames(tone, MEL, min_frequency=200.0, max_frequency=280.0)
    assert ((found < 140) | (found > 160)).all()
    with pytest.raises(ValueError, match=r"between 300\.0 and 200\.0 Hz"):
        pitch_of_frames(tone, MEL, min_frequency=300.0, max_frequency=200.0)


@needs_pyworld
def test_settings_that_change_the_values_change_where_they_are_stored():
    columns = [
        pitch_column(MEL, "dio", 60.0, 600.0), pitch_column(MEL, "harvest", 60.0, 600.0),
        pitch_column(MEL, "dio", 70.0, 600.0), pitch_column(MEL, "dio", 60.0, 500.0),
    ]  # fmt: skip
    assert len({str(sorted(column.settings.items())) for column in columns}) == 4
    assert {column.name for column in columns} == {"f0"}


def test_a_missing_pyworld_is_named_with_the_command_that_installs_it(monkeypatch):
    load_pyworld.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install pyworld"):
        pitch_column(MEL, "dio", 60.0, 600.0)
