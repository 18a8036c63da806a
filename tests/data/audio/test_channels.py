"""Channels that are not heard, rates that no recording has, and sound beyond what can be computed with."""

import logging
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.audio import AudioError, load_audio, probe_audio, stream_audio, waveform_from_array

from .recordings import RATE, encoded, noise


def warnings_of(caplog, channels, mono):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_audio(encoded(channels, subtype="FLOAT"), mono=mono)
    return [record.getMessage() for record in caplog.records]


def test_sound_that_is_not_heard_is_told_of_once(caplog, tmp_path):
    sound = noise(RATE)
    silence = np.zeros_like(sound)
    right = np.concatenate([silence, sound], 1)
    (message,) = warnings_of(caplog, right, "first")
    assert 'the first channel is silent, but channel 2 holds sound; mono="mean"' in message
    assert len(warnings_of(caplog, np.concatenate([0.001 * sound, silence, sound], 1), "first")) == 1
    line_noise = 0.03 * noise(RATE, seed=2)  # a telephone line without a speaker, 30 dB below the other one
    assert len(warnings_of(caplog, np.concatenate([line_noise, sound], 1), "first")) == 1
    (message,) = warnings_of(caplog, np.concatenate([sound, -sound], 1), "mean")
    assert 'cancel each other in their mean; mono="first"' in message
    path = tmp_path / "right.wav"
    path.write_bytes(encoded(right))
    caplog.clear()
    list(stream_audio(path, mono="first", block_seconds=0.05))
    assert [record.getMessage().startswith(f"{path}: ") for record in caplog.records] == [True]


def test_nothing_is_said_where_the_sound_is_heard(caplog):
    sound, other = noise(RATE), noise(RATE, seed=1)
    silence = np.zeros_like(sound)
    for channels in ([sound], [sound, other], [sound, silence], [0.1 * sound, other], [silence, silence]):
        for mono in ("first", "mean"):
            assert not warnings_of(caplog, np.concatenate(channels, 1), mono)
    assert not warnings_of(caplog, np.concatenate([silence] * 7 + [sound], 1), "mean")
    assert not warnings_of(caplog, np.concatenate([silence, 1e-5 * sound], 1), "first")  # noise of a converter


@pytest.mark.parametrize("rate", [1, 999, 768_001, 10_000_000])
def test_a_rate_that_no_recording_has_is_an_error_of_that_recording(tmp_path, rate):
    path = tmp_path / "odd.wav"
    content = bytearray(encoded(noise(100)))
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    for read in (load_audio, probe_audio, lambda source: load_audio(source, 16_000)):
        with pytest.raises(AudioError, match=rf"odd\.wav: has a sample rate of {rate} Hz; 1000 to 768000 Hz"):
            read(path)


def test_the_rates_at_the_bounds_are_taken():
    for rate in (1000, 768_000):
        content = bytearray(encoded(noise(100)))
        content[24:28] = struct.pack("<I", rate)
        assert load_audio(bytes(content))[1] == rate


@pytest.mark.parametrize("value", [1e16, -1e19, 3e38])
def test_sound_beyond_all_measure_is_refused_with_its_place(value):
    samples = noise(8000)[:, 0]
    samples[4000] = value
    with pytest.raises(AudioError, match=r"at sample 4000 \(0\.250 s\); samples must be no louder than 1e\+15"):
        load_audio(encoded(samples, subtype="FLOAT"))
    with pytest.raises(AudioError, match="at sample 4000; samples must be no louder"):
        waveform_from_array(samples)
    with pytest.raises(AudioError, match="inf at sample 1"):
        waveform_from_array(np.array([0.0, 1e300]))


@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=30))
def test_small_floats_keep_their_values(values):
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        samples = torch.tensor(values, dtype=dtype)
        assert torch.equal(waveform_from_array(samples), samples.float())
    assert waveform_from_array(np.array(values, np.float16)).tolist() == values


def test_bfloat16_of_numpy_is_read():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert waveform_from_array(np.array([0.5, -0.25], ml_dtypes.bfloat16)).tolist() == [0.5, -0.25]


def test_lists_that_are_no_arrays_are_named():
    with pytest.raises(AudioError, match="no array of samples"):
        waveform_from_array([[0.5], [0.5, 0.25]])
