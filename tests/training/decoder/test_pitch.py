"""Pitch targets."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder import pitch
from audiollm.training.decoder.pitch import fundamental_frequency, mean_pitch_errors, pitch_column, pitch_errors

needs_pyworld = pytest.mark.skipif(find_spec("pyworld") is None, reason="needs pyworld")
MEL = MelConfig()


def voice(frequency_N: torch.Tensor) -> torch.Tensor:
    """Ten harmonics of a frequency that changes over time."""
    cycles = torch.cumsum(frequency_N.double() / MEL.sample_rate, dim=0)
    return sum(torch.sin(2 * math.pi * k * cycles) / k for k in range(1, 11)).float() * 0.1


@needs_pyworld
@pytest.mark.parametrize("method", ["dio", "harvest"])
def test_it_finds_the_frequency_at_the_middle_of_each_frame(method):
    num_samples = 86 * MEL.hop_length + 100
    frequency = torch.linspace(120, 320, num_samples)  # 2.3 Hz a frame
    found = fundamental_frequency(voice(frequency), MEL, method=method)
    assert found.shape == (86,)
    assert found.dtype == torch.float32
    middles = frequency[MEL.hop_length // 2 :: MEL.hop_length][:86]
    error = (found - middles)[5:-5]
    assert error.abs().max() < 2.0
    assert abs(error.mean()) < 0.6  # half a frame off would be 1.2


@needs_pyworld
def test_silence_and_noise_are_unvoiced():
    assert fundamental_frequency(torch.zeros(20 * 256), MEL).tolist() == [0.0] * 20
    noise = 0.1 * torch.randn(100 * 256, generator=torch.Generator().manual_seed(0))
    assert (fundamental_frequency(noise, MEL) > 0).float().mean() < 0.2


@needs_pyworld
def test_frequencies_outside_the_range_are_not_found():
    tone = voice(torch.full((50 * 256,), 150.0))
    assert (fundamental_frequency(tone, MEL, min_frequency=100.0)[5:-5] > 0).all()
    found = fundamental_frequency(tone, MEL, min_frequency=200.0, max_frequency=280.0)
    assert ((found < 140) | (found > 160)).all()
    with pytest.raises(ValueError, match=r"between 300\.0 and 200\.0 Hz"):
        fundamental_frequency(tone, MEL, min_frequency=300.0, max_frequency=200.0)


@needs_pyworld
def test_settings_that_change_the_values_change_where_they_are_stored():
    columns = [
        pitch_column(MEL, "dio", 60.0, 600.0), pitch_column(MEL, "harvest", 60.0, 600.0),
        pitch_column(MEL, "dio", 70.0, 600.0), pitch_column(MEL, "dio", 60.0, 500.0),
    ]  # fmt: skip
    assert len({str(sorted(column.settings.items())) for column in columns}) == 4
    assert {column.name for column in columns} == {"f0"}


def test_a_missing_pyworld_is_named_with_the_command_that_installs_it(monkeypatch):
    pitch.load_pyworld.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install pyworld"):
        pitch_column(MEL, "dio", 60.0, 600.0)


def test_errors_are_counted_over_the_frames_that_they_are_about():
    target = torch.tensor([0.0, 200.0, 210.0, 0.0])
    predicted = torch.tensor([5.0, 190.0, 3.0, 180.0])
    errors = pitch_errors(predicted, target, voiced_threshold=10.0)
    assert (errors.absolute, errors.num_voiced, errors.num_wrong, errors.num_frames) == (10.0, 1, 2, 4)
    means = mean_pitch_errors([errors, pitch_errors(target, target, 10.0)])
    assert means == {"f0_error": pytest.approx(10 / 3), "voicing_error": 0.25}
    assert mean_pitch_errors([]) == {"f0_error": None, "voicing_error": None}
    assert np.isfinite(errors.absolute)
