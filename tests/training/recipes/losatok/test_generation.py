"""Spaces that stand beside a LoSATok's latents, and measures that they share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiollm.benchmarks.codes.clips import LabelledClip
from audiollm.data.conversation.types import AudioPart
from audiollm.tokenizer.base import Latents
from audiollm.tokenizer.losatok.front_ends import extend
from audiollm.training.recipes.losatok.data import Task
from audiollm.training.recipes.losatok.generation import GenerationSettings
from audiollm.training.recipes.losatok.judging import Judge, linear_loss
from audiollm.training.recipes.losatok.spaces import Frames, MelFrames, TeacherFeatures
from tests.tiny_losatok import tiny_losatok, tiny_teacher

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def _tone(hertz: float, num_samples: int) -> Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(num_samples) / 16000)


@pytest.mark.parametrize("space", [MelFrames(16), TeacherFeatures(tiny_teacher(), "tiny")])
@pytest.mark.parametrize("num_samples", [300, 641, 8000, 20000])
def test_frames_are_as_many_as_a_losatok_makes(space: Frames, num_samples: int) -> None:
    waveform = _tone(400, num_samples)
    made = space.encode([waveform, waveform[:200]], 16000)
    assert made.latents.shape[2] == space.latent_size
    assert len(made[0]) == space.num_frames(num_samples, 16000) == len(tiny_losatok().encode(waveform, 16000)[0])


def test_mel_is_what_the_acoustic_side_sees_and_sounds_again() -> None:
    tokenizer = tiny_losatok(num_mels=16)
    space, waveform = MelFrames(16), _tone(700, 12800)
    frames = space.frames(waveform)
    seen = tokenizer.acoustic.log_mel(extend(waveform)[None])[0].T[: 4 * len(frames)]
    torch.testing.assert_close(frames.reshape(-1, 16), seen)

    space = MelFrames(80)
    frames = space.frames(waveform)
    [sound] = space.decode(Latents(frames[None], torch.tensor([len(frames)])))
    assert sound.shape == (len(frames) * 640,)
    assert float(torch.fft.rfft(sound).abs().argmax()) * 16000 / len(sound) == pytest.approx(700, abs=40)
    with pytest.raises(ValueError, match="TeacherFeatures has no waveform decoder"):
        TeacherFeatures(tiny_teacher(), "tiny").decode(None)


def test_the_linear_loss_is_that_of_the_best_linear_reader() -> None:
    """Fitted here by least squares, time by time."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    frames = frames @ torch.tensor([[1, 0.9, 0], [0, 0.3, 0], [0, 0, 1]], dtype=torch.float64)
    frames = frames / frames.std(dim=0)
    noise = torch.randn(frames.shape, generator=generator, dtype=torch.float64)
    losses = []
    for t in TIMES:
        point, velocity = t * frames + (1 - t) * noise, frames - noise
        losses.append(float((point @ torch.linalg.lstsq(point, velocity).solution - velocity).square().mean()))
    assert linear_loss(frames, TIMES) == pytest.approx(sum(losses) / len(losses), rel=0.01)
    # Numbers that follow from each other are easier than others.
    assert linear_loss(frames[:, :1].repeat(1, 3), TIMES) < 0.6 * linear_loss(noise, TIMES)


def test_a_judge_tells_recordings_from_noise_and_one_class_from_another() -> None:
    generator = torch.Generator().manual_seed(0)
    clips, features = [], []
    for number in range(20):
        label = "low" if number % 2 else "high"
        clips.append(LabelledClip(f"n{number}", label, AudioPart(path="x.wav"), "train" if number < 12 else "test"))
        features.append(torch.randn(9, 4, generator=generator) + (3 if number % 2 else -3))
    judge = Judge([Task("sound", clips, "")], {"sound": features})
    same = {f"sound/n{number}": features[number][:7] for number in range(12, 20)}
    heard = judge.heard(same)
    assert heard["distance"] == pytest.approx(0, abs=1e-6)
    assert heard["probes"]["sound"]["logistic_accuracy"] == 1
    others = {f"sound/n{number}": features[number - 1] for number in range(12, 20)}
    assert judge.heard(others)["probes"]["sound"]["logistic_accuracy"] == 0
    far = {name: one + 10 for name, one in same.items()}
    assert judge.heard(far)["distance"] > 5


@pytest.mark.parametrize("evaluations", [1, 2, 3, 7])
def test_points_of_a_curve_are_evenly_spread_and_the_last_is_at_the_end(evaluations: int) -> None:
    settings = GenerationSettings(steps=7, evaluations=evaluations)
    due = [step for step in range(1, 8) if settings.is_due(step)]
    assert len(due) == evaluations
    assert due[-1] == 7
