"""Speaker vectors as a column of the training data: sizes, silence, and the encoder of one's own."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from audiollm.data.voices.encoders import register_speaker_encoder
from audiollm.tokenizer.decoder.configuration import FlowConfig, WaveformDecoderConfig
from audiollm.training.decoder.columns import speaker_column
from audiollm.training.decoder.shards import DecoderItem


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
