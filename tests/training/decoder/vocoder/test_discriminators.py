"""Discriminators and the losses that come of them."""

from __future__ import annotations

import math

import pytest
import torch

from audiollm.training.decoder.vocoder.discriminators import (
    Discriminators,
    PeriodDiscriminator,
    SpectrogramDiscriminator,
)
from audiollm.training.decoder.vocoder.losses import (
    SpectralDistance,
    adversarial_loss,
    discriminator_loss,
    f0_loss,
    feature_matching_loss,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def discriminators() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(periods=(2, 3), period_channels=2, resolutions=(64, 256), spectrogram_channels=2)


def test_every_discriminator_judges_every_segment_by_itself(discriminators):
    waveform = noise(3, 1000)
    together = discriminators(waveform)
    assert len(together) == 4
    alone = discriminators(waveform[1:2])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.score[1:2], other.score)
        assert len(one.features) == 4
        for feature, single in zip(one.features, other.features, strict=True):
            torch.testing.assert_close(feature[1:2], single)


def test_halves_are_the_judgements_of_the_halves(discriminators):
    recorded, made = noise(2, 900, seed=1), noise(2, 900, seed=2)
    for both, one, other in zip(
        discriminators(torch.cat([recorded, made])), discriminators(recorded), discriminators(made), strict=True
    ):
        first, second = both.halves()
        torch.testing.assert_close(first.score, one.score)
        torch.testing.assert_close(second.features[-1], other.features[-1])


def test_a_period_discriminator_compares_only_samples_a_period_apart():
    torch.manual_seed(0)
    judge = PeriodDiscriminator(period=5, channels=2)
    waveform = noise(1, 500)
    changed = waveform.clone()
    changed[:, 7::5] += 1.0  # one column: phase 2 of 5
    scores = [judge(one).features[-1][0] for one in (waveform, changed)]  # [channels, time, phase]
    differs = (scores[0] != scores[1]).any(dim=0).any(dim=0)
    assert differs.tolist() == [False, False, True, False, False]


def test_a_spectrogram_discriminator_does_not_see_the_sign():
    torch.manual_seed(0)
    judge = SpectrogramDiscriminator(n_fft=64, channels=2)
    torch.testing.assert_close(judge(noise(1, 500)).score, judge(-noise(1, 500)).score)


def test_without_any_discriminator_it_is_refused():
    with pytest.raises(ValueError, match="neither periods nor resolutions"):
        Discriminators((), 2, (), 2)


def test_the_game_is_least_squares(discriminators):
    recorded, made = discriminators(noise(2, 900, seed=1)), discriminators(noise(2, 900, seed=2))
    expected = [
        ((1 - one.score) ** 2).mean() + (other.score**2).mean() for one, other in zip(recorded, made, strict=True)
    ]
    torch.testing.assert_close(discriminator_loss(recorded, made), sum(expected) / 4)
    torch.testing.assert_close(adversarial_loss(made), sum(((1 - one.score) ** 2).mean() for one in made) / 4)


def test_discriminators_learn_to_tell_noise_from_tones(discriminators):
    tone = torch.sin(torch.arange(900) * 0.2).repeat(2, 1) * 0.3
    optimizer = torch.optim.Adam(discriminators.parameters(), 5e-3)
    losses = []
    for step in range(40):
        loss = discriminator_loss(discriminators(tone), discriminators(noise(2, 900, seed=step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_feature_matching_is_zero_for_equal_sound_and_pulls_on_the_made_side_alone(discriminators):
    recorded = noise(2, 900, seed=1).requires_grad_()
    made = noise(2, 900, seed=2).requires_grad_()
    same = discriminators(recorded)
    assert feature_matching_loss(same, same).item() == 0
    feature_matching_loss(discriminators(recorded), discriminators(made)).backward()
    assert recorded.grad is None
    assert made.grad.abs().max() > 0


@pytest.mark.parametrize("convergence", [0.0, 1.0])
def test_losses_are_means_over_segments(discriminators, convergence):
    """Else accumulation over passes would change the update."""
    recorded, made = noise(2, 900, seed=1), 3 * noise(2, 900, seed=2)
    recorded[1] *= 0.1
    distance = SpectralDistance(22050, (128, 256), convergence)
    pairs = [(recorded[n : n + 1], made[n : n + 1]) for n in (0, 1)]
    torch.testing.assert_close(distance(made, recorded), sum(distance(two, one) for one, two in pairs) / 2)
    judged = [(discriminators(one), discriminators(two)) for one, two in [(recorded, made), *pairs]]
    for loss in (feature_matching_loss, discriminator_loss):
        whole, first, second = (loss(*pair) for pair in judged)
        torch.testing.assert_close(whole, (first + second) / 2)


def test_the_spectral_distance_is_in_nats():
    waveform = noise(2, 2000)
    distance = SpectralDistance(22050, (256, 512))
    assert distance(waveform, waveform).item() == 0
    assert distance(waveform * math.e, waveform).item() == pytest.approx(1.0, rel=1e-3)


def test_the_spectral_distance_reaches_half_the_sample_rate():
    time = torch.arange(4096) / 22050
    distance = SpectralDistance(22050, (512,))
    quiet = noise(1, 4096) * 1e-2
    assert distance(quiet + 0.3 * torch.sin(2 * math.pi * 10500 * time), quiet) > 0.1


def test_silence_gives_finite_gradients():
    made = torch.zeros(1, 2000, requires_grad=True)
    SpectralDistance(22050, (256,), convergence=1.0)(made, torch.zeros(1, 2000)).backward()
    assert made.grad.isfinite().all()


def test_the_pitch_loss_is_in_hertz():
    assert f0_loss(torch.tensor([[100.0, 0.0]]), torch.tensor([[110.0, 20.0]])).item() == 15
