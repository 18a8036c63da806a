"""Damaged recordings that are taken as far as they go, and what is said of the rest."""

import logging

import pytest
import torch

from audiollm.data.audio import AudioError, load_audio, probe_audio, stream_audio

from .recordings import RATE, encoded, noise, recording


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "Vorbis", "Opus", "MP3", "CAF", "AU", "W64", "SPHERE", "VOC"])
def test_what_is_there_is_taken_and_the_rest_is_told_of(kind, caplog):
    content = recording(kind, 60_000)
    whole, _ = load_audio(content)
    cut = content[: len(content) * 2 // 3]
    with pytest.raises(AudioError):
        load_audio(cut)
    heard = []
    waveform, _ = load_audio(cut, on_damaged=heard.append)
    assert 0.3 * len(whole) < len(waveform) < len(whole)
    assert torch.allclose(waveform[:20_000], whole[:20_000], atol=1e-6)
    (damage,) = heard
    assert damage.seconds_read == len(waveform) / RATE
    assert damage.seconds_promised is None or damage.seconds_promised <= len(whole) / RATE
    assert "truncated" in damage.reason
    with caplog.at_level(logging.WARNING):
        assert torch.equal(torch.cat(list(stream_audio(cut, on_damaged="take"))), waveform)
    (record,) = caplog.records
    assert f"{len(waveform) / RATE:.3f} s" in record.getMessage()
    assert probe_audio(cut, on_damaged=heard.append).num_samples == len(waveform)
    assert heard[1] == damage


def test_nothing_is_said_of_a_whole_recording(caplog):
    heard = []
    with caplog.at_level(logging.WARNING):
        for kind in ("WAV", "FLAC", "Opus", "MP3"):
            content = recording(kind)
            assert torch.equal(load_audio(content, on_damaged=heard.append)[0], load_audio(content)[0])
            load_audio(content, on_damaged="take")
    assert not heard
    assert not caplog.records


def test_a_segment_must_be_there_even_of_a_damaged_recording():
    cut = encoded(noise(RATE))[:16_044]  # half a second
    assert len(load_audio(cut, offset=0.25, duration=0.25, on_damaged="take")[0]) == RATE // 4
    with pytest.raises(AudioError, match=r"lasts 0\.5 s"):
        load_audio(cut, offset=0.25, duration=0.5, on_damaged="take")


def test_what_cannot_be_read_at_all_is_an_error_all_the_same(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for content in (b"no audio", b"", recording("Opus")[:60], encoded(noise(0))):
        with pytest.raises(AudioError):
            load_audio(content, on_damaged="take")


def test_what_is_done_about_damage_is_named():
    with pytest.raises(ValueError, match="on_damaged='ignore'"):
        load_audio(recording("WAV"), on_damaged="ignore")
