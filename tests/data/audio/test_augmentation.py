"""Degradation keeps length, time and (where it says so) level, and comes from its generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiollm.data.audio.augmentation import AugmentationConfig, augment
from audiollm.data.audio.degradation import (
    CODECS,
    NOISE_COLOURS,
    coloured_noise,
    crush,
    mix_at_snr,
    reverberate,
    transmit,
)

RATE = 16_000
WAYS = AugmentationConfig(clip_snr_db=(12.0, 24.0)).ways


def sweep(seconds: float = 1.0) -> Tensor:
    times = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return (0.3 * torch.sin(2 * torch.pi * (200 * times + 700 * times**2))).float()


def power(waveform: Tensor) -> float:
    return float(waveform.double().square().mean())


def level_db(clean: Tensor, degraded: Tensor) -> float:
    return 10 * np.log10(power(clean) / power(degraded - clean))


def lag(clean: Tensor, degraded: Tensor) -> int:
    spectrum = torch.fft.rfft(degraded, 2 * len(clean)) * torch.fft.rfft(clean, 2 * len(clean)).conj()
    best = int(torch.fft.irfft(spectrum).argmax())
    return best if best < len(clean) else best - 2 * len(clean)


def only(way: str, **options: Any) -> AugmentationConfig:
    """Everything off but one way."""
    off: dict[str, Any] = dict.fromkeys(WAYS) | {"codecs": (), "gain_db": None, "probability": 1.0}
    kept = getattr(AugmentationConfig(clip_snr_db=(12.0, 24.0)), way)
    return AugmentationConfig(**off | {way: kept} | options)


# --- degradation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -10.0), ("brown", -20.0)])
def test_power_of_noise_falls_with_its_colour(colour: Any, slope_db: float) -> None:
    noise = coloured_noise(2**18, RATE, colour, np.random.default_rng(0))
    assert power(noise) == pytest.approx(1.0, rel=1e-4)
    density = torch.fft.rfft(noise.double()).abs().square()
    frequencies = torch.fft.rfftfreq(2**18, 1 / RATE)

    def around(hertz: float) -> float:
        return float(density[(frequencies > hertz * 0.9) & (frequencies < hertz * 1.1)].mean())

    per_decade = 10 * np.log10(around(4000) / around(400))
    assert per_decade == pytest.approx(slope_db, abs=1.0)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 16_001])
@pytest.mark.parametrize("colour", NOISE_COLOURS)
def test_noise_has_any_length(num_samples: int, colour: Any) -> None:
    noise = coloured_noise(num_samples, RATE, colour, np.random.default_rng(0))
    assert noise.shape == (num_samples,)
    assert noise.dtype == torch.float32
    assert bool(noise.isfinite().all())


@settings(max_examples=25, deadline=None)
@given(snr_db=st.floats(-30, 60), num_other=st.integers(1, 5000), scale=st.floats(1e-3, 10))
def test_mixing_keeps_the_signal_and_puts_the_other_at_its_level(snr_db: float, num_other: int, scale: float) -> None:
    signal, other = sweep(0.1).double(), scale * (1 + torch.rand(num_other, dtype=torch.float64))
    mixed = mix_at_snr(signal, other, snr_db)
    assert mixed.shape == signal.shape
    assert level_db(signal, mixed) == pytest.approx(snr_db, abs=1e-6)


def test_silence_has_no_level_to_mix_at() -> None:
    signal, silence = sweep(0.1), torch.zeros(50)
    assert torch.equal(mix_at_snr(signal, silence, 10.0), signal)
    assert torch.equal(mix_at_snr(silence, signal, 10.0), silence)
    with pytest.raises(ValueError, match="no samples"):
        mix_at_snr(signal, torch.zeros(0), 10.0)
    with pytest.raises(ValueError, match="snr_db=nan"):
        mix_at_snr(signal, signal, float("nan"))


def test_a_room_rings_on_for_its_decay_time_and_delays_nothing() -> None:
    impulse = torch.zeros(RATE)
    impulse[100] = 1.0
    wet = reverberate(
        impulse, RATE, decay_seconds=0.5, direct_to_reverberant_db=6.0, generator=np.random.default_rng(0)
    )
    assert power(wet) == pytest.approx(power(impulse), rel=1e-5)
    assert int(wet.abs().argmax()) == 100
    assert float(wet[:100].abs().max()) < 1e-6
    direct, tail = float(wet[100] ** 2), float(wet[101:].double().square().sum())
    assert 10 * np.log10(direct / tail) == pytest.approx(6.0, abs=0.01)
    early, late = (float(wet[start : start + 1600].double().square().sum()) for start in (200, 200 + 4000))
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=2.0)  # half the decay time: 30 of 60 dB


def test_crushing_leaves_so_many_steps_whatever_the_level() -> None:
    for scale in (1.0, 1e-4):
        crushed = crush(sweep() * scale, 8)
        assert len(crushed.unique()) == 255
        assert level_db(sweep() * scale, crushed) == pytest.approx(6.02 * 8 + 1.76, abs=0.5)
    assert torch.equal(crush(torch.zeros(5), 8), torch.zeros(5))
    with pytest.raises(ValueError, match="bits=1"):
        crush(sweep(), 1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_samples", [1, 8_003, 16_000])
def test_codecs_keep_length_and_time(codec: Any, num_samples: int) -> None:
    clip = 4 * sweep(2.0)[:num_samples]  # peaks beyond full scale
    received = transmit(clip, RATE, codec)
    assert received.shape == clip.shape
    assert received.dtype == torch.float32
    assert bool(received.isfinite().all())
    if num_samples > 1:
        assert abs(lag(clip, received)) <= 1
        assert 5 < level_db(clip, received) < 60  # lossy, and not another sound


def test_codecs_say_which_rates_they_lack() -> None:
    with pytest.raises(ValueError, match="opus at 22050 Hz"):
        transmit(sweep(), 22_050, "opus")
    with pytest.raises(ValueError, match="codec 'aac'"):
        transmit(sweep(), RATE, "aac")  # type: ignore[arg-type]


# --- augmentation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_every_way_changes_the_clip_and_not_its_length_or_the_original(way: str) -> None:
    clip = sweep(0.5)
    kept = clip.clone()

    def degraded(seed: int) -> Tensor:
        return augment(clip, RATE, only(way), np.random.default_rng(seed), lambda generator: torch.ones(7))

    first = degraded(0)
    assert first.shape == clip.shape
    assert first.dtype == torch.float32
    assert not torch.equal(first, clip)
    assert torch.equal(clip, kept)
    assert torch.equal(first, degraded(0))
    if way != "clip_snr_db":
        assert any(not torch.equal(first, degraded(seed)) for seed in range(1, 8))


@pytest.mark.parametrize("way", ["white_snr_db", "pink_snr_db", "brown_snr_db", "clip_snr_db"])
def test_levels_come_from_the_range(way: str) -> None:
    config = only(way, **{way: (10.0, 20.0)})
    clip = sweep(0.1)
    levels = [
        level_db(clip, augment(clip, RATE, config, np.random.default_rng(seed), lambda generator: torch.ones(7)))
        for seed in range(40)
    ]
    assert 10 <= min(levels) < 12
    assert 18 < max(levels) <= 20.001


def test_the_share_of_degraded_clips_is_the_probability_and_ways_are_drawn_evenly() -> None:
    clip = sweep(0.01)
    config = AugmentationConfig(
        probability=0.4, white_snr_db=(60, 60), pink_snr_db=None, brown_snr_db=None, bit_depth=(2, 2),
        reverberation_seconds=None, codecs=(), gain_db=None,
    )  # fmt: skip
    outcomes = [augment(clip, RATE, config, np.random.default_rng(seed)) for seed in range(600)]
    untouched = sum(torch.equal(one, clip) for one in outcomes)
    crushed = sum(len(one.unique()) <= 3 for one in outcomes)
    assert untouched / 600 == pytest.approx(0.6, abs=0.06)
    assert crushed / (600 - untouched) == pytest.approx(0.5, abs=0.1)


def test_gain_is_on_top() -> None:
    config = only("bit_depth", bit_depth=(14, 14), gain_db=(-6.0, -6.0))
    ratio = power(augment(sweep(), RATE, config, np.random.default_rng(0))) / power(sweep())
    assert 10 * np.log10(ratio) == pytest.approx(-6.0, abs=0.01)


def test_nothing_happens_unless_asked_for() -> None:
    assert augment(sweep(), RATE, AugmentationConfig(), np.random.default_rng(0)).equal(sweep())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, "probability=1.5"),
        ({"white_snr_db": (30.0, 10.0)}, "white_snr_db"),
        ({"bit_depth": (1, 8)}, "bit_depth"),
        ({"codecs": ("aac",)}, "'aac' is unknown"),
        ({**dict.fromkeys(WAYS), "codecs": (), "probability": 0.5}, "no way to degrade"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**options)


def test_a_background_needs_clips() -> None:
    with pytest.raises(ValueError, match="pass other="):
        augment(sweep(), RATE, only("clip_snr_db"), np.random.default_rng(0))
