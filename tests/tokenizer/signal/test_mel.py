"""The decoder's mel spectrogram equals the reference, is differentiable and refuses what it cannot do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram, slaney_mel_filters

KEYS = {
    "sampling_rate": "sample_rate", "n_fft": "n_fft", "win_size": "window_length", "hop_size": "hop_length",
    "num_mels": "num_mels", "fmin": "min_frequency", "fmax": "max_frequency",
}  # fmt: skip
"""Settings of the reference, and how we call them."""


@pytest.fixture(scope="module")
def recording(mel_22k_folder: Path) -> dict[str, Tensor]:
    stored = load_file(mel_22k_folder / "io.safetensors")
    return {"waveform": stored["waveform_int16"].float() / 32768, "log_mel": stored["log_mel"]}


def test_equals_the_reference(recording: dict[str, Tensor], mel_22k_folder: Path) -> None:
    """Each of a transform's log2(n) stages rounds sums as large as the loudest band, on every processor another way.

    So energies are compared, against the loudest of their frame: a quiet band is a small difference of large sums, and
    its logarithm has no bound that float32 keeps.
    """
    values = json.loads((mel_22k_folder / "meta.json").read_text(encoding="utf-8"))
    config = MelConfig(**{ours: values[theirs] for theirs, ours in KEYS.items()})
    energies = MelSpectrogram(config)(recording["waveform"]).exp()
    expected = recording["log_mel"].exp()
    rounding = 2 * math.log2(config.n_fft) * torch.finfo(torch.float32).eps
    assert ((energies - expected).abs() <= rounding * expected.amax(dim=1, keepdim=True)).all()


def test_one_waveform_needs_no_batch_and_a_cast_model_changes_nothing(recording: dict[str, Tensor]) -> None:
    model = nn.ModuleDict({"mel": MelSpectrogram(MelConfig())})
    expected = model["mel"](recording["waveform"])
    assert not model.state_dict()
    model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model["mel"](recording["waveform"]), expected)
    assert torch.equal(model["mel"](recording["waveform"][0]), expected[0])


@pytest.mark.parametrize(
    "config",
    [
        MelConfig(),
        MelConfig(sample_rate=16000, n_fft=512, window_length=400, hop_length=160, num_mels=24, max_frequency=7000.0),
    ],
)
@pytest.mark.parametrize("num_samples", [4000, 5120])
def test_tone_peaks_in_its_band(config: MelConfig, num_samples: int) -> None:
    frequency = 1000.0
    waveform = 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(num_samples) / config.sample_rate)
    log_mel = MelSpectrogram(config)(waveform[None])
    assert log_mel.shape == (1, config.num_mels, num_samples // config.hop_length)
    filters = slaney_mel_filters(
        config.n_fft, config.num_mels, config.sample_rate, config.min_frequency, config.max_frequency
    )
    loudest = log_mel[0, :, 2:-2].mean(dim=1).argmax()
    band = torch.nonzero(filters[loudest]) * config.sample_rate / config.n_fft
    assert band.min() - 40 <= frequency <= band.max() + 40


def test_gradient_is_finite_even_in_silence(recording: dict[str, Tensor]) -> None:
    waveform = torch.cat([recording["waveform"][:, :4000], torch.zeros(1, 4000)], dim=1).requires_grad_()
    MelSpectrogram(MelConfig())(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()
    assert waveform.grad[:, :4000].abs().sum() > 0


@pytest.mark.parametrize("num_samples", [0, 1, 384])
def test_too_short_a_waveform_is_named(num_samples: int) -> None:
    with pytest.raises(ValueError, match=f"{num_samples} samples are too few.*at least 385"):
        MelSpectrogram(MelConfig())(torch.zeros(1, num_samples))
    assert MelSpectrogram(MelConfig())(torch.zeros(1, 385)).shape == (1, 80, 1)


@pytest.mark.parametrize("name", ["window_length", "hop_length"])
def test_windows_must_fit_the_transform(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=2048"):
        MelSpectrogram(MelConfig(**{name: 2048}))  # type: ignore[arg-type]
