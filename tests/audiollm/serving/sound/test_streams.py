"""A decoder's samples at the rate and the speed of a response."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from audiollm.data.audio import resample
from audiollm.serving.sound import RESPONSE_RATE, PyAVMissingError, SoundStream, SpeedChanger

SPEEDS = [0.25, 0.3, 0.5, 0.8, 0.99, 1.01, 1.25, 1.5, 2.0, 3.0, 4.0]


def tone(num_samples: int, frequency_hz: float = 440.0, rate: int = RESPONSE_RATE) -> np.ndarray:
    samples = 0.4 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / rate)
    return (samples + 0.02 * np.random.default_rng(0).standard_normal(num_samples)).astype(np.float32)


def through(stream: SoundStream | SpeedChanger, samples: np.ndarray, piece: int) -> np.ndarray:
    pieces = [stream.write(samples[start : start + piece]) for start in range(0, len(samples), piece)]
    return np.concatenate([*pieces, stream.close()])


def dominant_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RESPONSE_RATE / len(samples))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("num_samples", [0, 1, 441, 30_000])
@pytest.mark.parametrize("piece", [147, 2205, 30_000])
def test_pieces_are_resampled_to_the_last_bit_as_the_whole(rate, num_samples, piece):
    samples = tone(num_samples, rate=rate)
    whole = resample(torch.from_numpy(samples), rate, RESPONSE_RATE).numpy()
    np.testing.assert_array_equal(through(SoundStream(rate), samples, piece), whole)


def test_the_response_s_rate_passes_through_at_once():
    samples = tone(1000)
    stream = SoundStream(RESPONSE_RATE)
    np.testing.assert_array_equal(stream.write(samples), samples)
    assert len(stream.close()) == 0


def test_resampled_sound_comes_early():
    assert len(SoundStream(22_050).write(tone(2205, rate=22_050))) > 0


@pytest.mark.parametrize("speed", SPEEDS)
def test_speed_changes_the_length_and_keeps_pitch_and_level(speed):
    pytest.importorskip("av")
    samples = tone(2 * RESPONSE_RATE)
    changed = through(SpeedChanger(speed), samples, 2400)
    assert len(changed) == round(len(samples) / speed)
    assert dominant_hz(changed) == pytest.approx(440, abs=5)
    assert np.sqrt(np.mean(changed**2)) == pytest.approx(np.sqrt(np.mean(samples**2)), rel=0.1)


@pytest.mark.parametrize("speed", SPEEDS)
def test_sound_stays_where_it_was(speed):
    """A second of a low tone, then one of a high one: at any speed each is half of the result."""
    pytest.importorskip("av")
    samples = np.concatenate([tone(RESPONSE_RATE), tone(RESPONSE_RATE, 1500.0)])
    low, high = np.array_split(through(SpeedChanger(speed), samples, 2400), 2)
    margin = RESPONSE_RATE // 10
    assert dominant_hz(low[: len(low) - margin]) == pytest.approx(440, abs=10)
    assert dominant_hz(high[margin:]) == pytest.approx(1500, abs=10)


@pytest.mark.parametrize("speed", [0.25, 0.75, 1.5, 4.0])
def test_pieces_make_no_difference_to_speed(speed):
    pytest.importorskip("av")
    samples = tone(10_007)
    whole = through(SpeedChanger(speed), samples, len(samples))
    for piece in (1, 160, 997, 2400):
        np.testing.assert_array_equal(through(SpeedChanger(speed), samples[:10_007], piece), whole)


@pytest.mark.parametrize("speed", [0.25, 0.75, 1.5, 4.0])
@pytest.mark.parametrize("num_samples", [0, 1, 2, 100, 1000, 2000])
def test_short_sound_has_its_length_too(speed, num_samples):
    pytest.importorskip("av")
    assert len(through(SpeedChanger(speed), tone(num_samples), 500)) == round(num_samples / speed)


def test_changed_sound_comes_early():
    pytest.importorskip("av")
    changer = SpeedChanger(0.5)
    assert sum(len(changer.write(tone(2400))) for _ in range(3)) > 0


@pytest.mark.parametrize("speed", [0.5, 1.7])
def test_rate_and_speed_together(speed):
    pytest.importorskip("av")
    samples = tone(22_050, rate=22_050)
    changed = through(SoundStream(22_050, speed), samples, 1764)
    assert len(changed) == round(RESPONSE_RATE / speed)
    assert dominant_hz(changed) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("speed", [0, -1, 0.2, 4.1, float("nan"), float("inf")])
def test_other_speeds_are_refused(speed):
    with pytest.raises(ValueError, match=r"speed=.*from 0\.25 to 4"):
        SoundStream(22_050, speed)


def test_without_pyav_speed_1_works_and_others_say_what_is_missing(monkeypatch):
    def without_av(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", without_av)
    assert len(through(SoundStream(22_050), tone(2205), 500)) == 2400
    with pytest.raises(PyAVMissingError, match=r"speed other than 1 needs PyAV.*audiollm\[serve\]"):
        SoundStream(22_050, 1.5)
