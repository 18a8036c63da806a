"""The resampler equals a slow, obvious one, in blocks of any size and for awkward rates."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiollm.tokenizer.signal.resampling import Resampler, check_sample_rate, resample


def naive_resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Sums over all input samples, for each output sample on its own, in float64."""
    divisor = math.gcd(from_rate, to_rate)
    step, phases = from_rate // divisor, to_rate // divisor
    cutoff = min(step, phases) * 0.99
    length = -(-len(waveform) * phases // step)
    places = torch.arange(len(waveform), dtype=torch.float64)
    output = []
    for index in range(length):
        times = ((places / step - index / phases) * cutoff).clamp(-6, 6)
        weights = torch.sinc(times) * torch.cos(times * math.pi / 12) ** 2 * cutoff / step
        output.append((weights * waveform.double()).sum())
    return torch.stack(output).float()


@pytest.mark.parametrize("from_rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000, 44101, 47999])
def test_equal_to_the_definition(from_rate: int, noise: Callable[..., Tensor]) -> None:
    waveform = noise(from_rate // 40)
    resampled = resample(waveform, from_rate, 16000)
    expected = naive_resample(waveform, from_rate, 16000)
    assert len(resampled) == math.ceil(len(waveform) * 16000 / from_rate)
    # The filters' phases are float32 (as the reference's are), which costs more for thousands of phases.
    torch.testing.assert_close(resampled, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("from_rate", [8000, 22050, 44100, 192000, 44101])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_blocks_of_any_size_give_the_whole(from_rate: int, data: st.DataObject) -> None:
    waveform = torch.randn(data.draw(st.integers(0, 5000)), generator=torch.Generator().manual_seed(1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(waveform)), max_size=5)))
    edges = [0, *cuts, len(waveform)]
    resampler = Resampler(from_rate, 16000)
    blocks = [resampler.push(waveform[first:last]) for first, last in itertools.pairwise(edges)]
    whole = resample(waveform, from_rate, 16000)
    torch.testing.assert_close(torch.cat([*blocks, resampler.finish()]), whole, atol=1e-6, rtol=0)


def test_a_tone_keeps_its_pitch_and_level() -> None:
    seconds = torch.arange(44100) / 44100
    resampled = resample(torch.sin(2 * math.pi * 440 * seconds), 44100, 16000)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)
    torch.testing.assert_close(resampled[200:-200], expected[200:-200], atol=2e-3, rtol=0)


def test_equal_rates_return_the_input(noise: Callable[..., Tensor]) -> None:
    waveform = noise(1000)
    assert torch.equal(resample(waveform, 16000, 16000), waveform)


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("from_rate", [8000, 44100, 44101])
def test_hardly_any_samples(length: int, from_rate: int) -> None:
    assert len(resample(torch.ones(length), from_rate, 16000)) == math.ceil(length * 16000 / from_rate)


@pytest.mark.parametrize("rate", [0, -16000, 10, 10**7, 44100.5, float("nan"), True, "16000", None])
def test_nonsense_rates_are_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="sample_rate="):
        check_sample_rate(rate)  # type: ignore[arg-type]


PEAK_OF_TWENTY_MINUTES = """
import re, torch
from pathlib import Path
from audiollm.tokenizer.signal.resampling import resample
def peak():
    return int(re.search("VmHWM:\\\\s*([0-9]+)", Path("/proc/self/status").read_text()).group(1)) * 1024
torch.set_num_threads(1)
clip = torch.full((20 * 60 * 16000,), 0.1)
resample(clip[:16000], 16000, 24000)
before = peak()
made = resample(clip, 16000, 24000)
print((peak() - before) / made.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process so")
def test_a_long_recording_takes_little_more_memory_than_what_comes_out() -> None:
    shown = subprocess.run([sys.executable, "-c", PEAK_OF_TWENTY_MINUTES], capture_output=True, text=True, check=True)
    assert 0.5 < float(shown.stdout) < 2.5
