"""The vocoder equals the reference, does not depend on batch or chunks, and keeps its weights through folding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.benchmarks.speed.plain.vocoder import PlainVocoder
from audiollm.tokenizer.decoder.configuration import VocoderConfig
from audiollm.tokenizer.decoder.vocoder import chunking
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder

FIXTURES = Path(__file__).parents[3] / "fixtures" / "parity" / "decoder"
SIZES: dict[str, dict[str, Any]] = {
    "two stages": {},
    "three stages, odd rate": {
        "base_channels": 16,
        "upsample_rates": (4, 3, 2),
        "upsample_kernel_sizes": (8, 7, 6),
        "source_resblock_kernel_sizes": (5, 7, 11),
        "source_resblock_dilations": ((1, 2), (1, 3), (1,)),
        "istft_n_fft": 12,
        "istft_hop_length": 3,
    },
    "one stage": {
        "upsample_rates": (5,),
        "upsample_kernel_sizes": (11,),
        "source_resblock_kernel_sizes": (3,),
        "source_resblock_dilations": ((1,),),
        "num_harmonics": 0,
    },
    "other numbers everywhere": {
        "num_mels": 12,
        "sample_rate": 16000,
        "num_harmonics": 3,
        "sine_amplitude": 0.3,
        "noise_amplitude": 0.05,
        "voiced_threshold": 0.1,
        "resblock_kernel_sizes": (5,),
        "resblock_dilations": ((2, 1),),
        "leaky_slope": 0.3,
        "amplitude_limit": 0.02,
    },
}


@pytest.fixture(scope="module")
def released() -> HiFTVocoder:
    """The reference's weights."""
    vocoder = HiFTVocoder(VocoderConfig(base_channels=64, f0_channels=32)).eval().requires_grad_(False)
    vocoder.load_state_dict(torch.load(FIXTURES / "hift.pt", weights_only=True))
    return vocoder


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(FIXTURES / "io.safetensors")


@pytest.fixture
def make_vocoder() -> Callable[..., HiFTVocoder]:
    """Makes a tiny vocoder with weights large enough for every part to be heard."""

    def make(**overrides: Any) -> HiFTVocoder:
        torch.manual_seed(0)
        vocoder = HiFTVocoder(
            VocoderConfig(**{"num_mels": 8, "base_channels": 8, "f0_channels": 6, "num_harmonics": 2, **overrides})
        ).eval()
        for name, parameter in vocoder.named_parameters():
            if name.endswith("alpha"):
                torch.nn.init.uniform_(parameter.data, 0.5, 2.0)
        torch.nn.init.constant_(vocoder.f0_predictor.classifier.weight, 60.0)
        return vocoder

    return make


def draw_input(vocoder: HiFTVocoder, num_frames: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mel, phase and noise of one batch; garbage beyond each row's own frames."""
    generator = torch.Generator().manual_seed(1)
    config, longest = vocoder.config, max(num_frames)
    harmonics = config.num_harmonics + 1
    mel = torch.randn(len(num_frames), config.num_mels, longest, generator=generator)
    phase = torch.randn(len(num_frames), harmonics, generator=generator)
    noise = torch.randn(len(num_frames), harmonics, longest * config.hop_length, generator=generator)
    return mel, phase, noise


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("num_frames", [1, 2, 19])
@torch.no_grad()
def test_equals_the_plain_path_at_any_size(sizes: str, num_frames: int, make_vocoder: Callable[..., Any]) -> None:
    vocoder = make_vocoder(**SIZES[sizes])
    mel, phase, noise = draw_input(vocoder, [num_frames])
    plain = PlainVocoder(vocoder)(mel[0], phase[0], noise[0])
    torch.testing.assert_close(vocoder(mel, phase=phase, noise=noise)[0], plain, atol=1e-5, rtol=1e-4)
    assert 0 < plain.abs().max() <= vocoder.config.amplitude_limit
    assert plain.shape == (num_frames * vocoder.config.hop_length,)


@pytest.mark.parametrize("sizes", ["two stages", "three stages, odd rate"])
def test_row_of_a_batch_is_as_if_alone(sizes: str, make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder(**SIZES[sizes])
    num_frames = [3, 20, 1, 12]
    mel, _, _ = draw_input(vocoder, [*num_frames[1:], 22])  # two frames more than any row has

    def generators(rows: list[int]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(row) for row in rows]

    batch = vocoder(mel, num_frames, generator=generators([0, 1, 2, 3]))
    assert batch.shape == (4, 22 * vocoder.config.hop_length)
    for row, frames in enumerate(num_frames):
        samples = frames * vocoder.config.hop_length
        alone = vocoder(mel[row : row + 1, :, :frames], generator=generators([row]))
        torch.testing.assert_close(batch[row, :samples], alone[0], atol=1e-6, rtol=1e-4)
        assert (batch[row, samples:] == 0).all()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shares", [None, (1.0, 0.4, 0.05, 0.7)])
@torch.no_grad()
def test_chunks_leave_no_trace(
    sizes: str,
    shares: tuple[float, ...] | None,
    make_vocoder: Callable[..., HiFTVocoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocoder = make_vocoder(**SIZES[sizes])
    num_frames = 10 * vocoder.reach
    lengths = None if shares is None else [int(share * num_frames) for share in shares]
    mel, phase, noise = draw_input(vocoder, [num_frames] * 4)
    whole = vocoder(mel, lengths, phase=phase, noise=noise)
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 1)
    calls: list[int] = []
    handle = vocoder.pre_conv.register_forward_hook(lambda *_: calls.append(1))
    chunked = vocoder(mel, lengths, phase=phase, noise=noise)
    handle.remove()
    assert len(calls) > 1
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=1e-4)


def test_reach_is_as_far_as_a_frame_is_heard_and_not_much_farther(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder()
    mel, phase, noise = draw_input(vocoder, [80])
    source = vocoder.excitation(vocoder.predict_f0(mel), phase=phase, noise=noise)
    changed_mel, changed_source = mel.clone(), source.clone()
    changed_mel[..., 40] += 1
    changed_source[..., 40 * 256 : 41 * 256] *= -1
    difference = (vocoder.filter(changed_mel, changed_source) - vocoder.filter(mel, source)).abs()[0]
    (places,) = torch.nonzero(difference.reshape(80, 256).amax(dim=1), as_tuple=True)
    assert 0 <= vocoder.reach - (40 - int(places.min())) <= 4
    assert 0 <= vocoder.reach - (int(places.max()) - 40) <= 4


@torch.no_grad()
def test_folding_changes_neither_sound_nor_checkpoint(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder()
    for parameter in vocoder.parameters():
        parameter.mul_(1.5)
    mel, phase, noise = draw_input(vocoder, [9])
    before, names = vocoder(mel, phase=phase, noise=noise), list(vocoder.state_dict())
    vocoder.fold_weight_norm()
    assert "pre_conv.weight" in dict(vocoder.named_parameters())
    torch.testing.assert_close(vocoder(mel, phase=phase, noise=noise), before)
    assert sorted(vocoder.state_dict()) == sorted(names)

    other = make_vocoder()
    other.load_state_dict(vocoder.state_dict())
    torch.testing.assert_close(other(mel, phase=phase, noise=noise), before)
    folded = make_vocoder().fold_weight_norm()
    folded.load_state_dict(other.state_dict())
    torch.testing.assert_close(folded(mel, phase=phase, noise=noise), before)
    torch.testing.assert_close(folded.unfold_weight_norm()(mel, phase=phase, noise=noise), before)
    assert sorted(name for name, _ in folded.named_parameters()) == sorted(names)


def test_folded_vocoder_names_what_a_checkpoint_lacks(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder().fold_weight_norm()
    state = vocoder.state_dict()
    del state["pre_conv.weight_g"]
    with pytest.raises(RuntimeError, match=r"pre_conv\.weight"):
        vocoder.load_state_dict(state)


def test_every_parameter_can_be_trained(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder().train()
    mel, _, _ = draw_input(vocoder, [12, 12])
    f0 = vocoder.predict_f0(mel)
    waveform = vocoder.filter(mel, vocoder.excitation(f0))
    (waveform.square().mean() + f0.mean()).backward()
    for name, parameter in vocoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_ten_minutes_keep_their_pitch(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder(num_harmonics=0)
    num_frames, f0 = 51680, 440.1234
    phase, noise = torch.zeros(1, 1), torch.zeros(1, 1, num_frames * 256)
    source = vocoder.excitation(torch.full((1, num_frames), f0), phase=phase, noise=noise)
    place = torch.arange(num_frames * 256 - 4096, num_frames * 256, dtype=torch.float64) + 1
    stored_f0 = torch.tensor(f0).double()
    mix = vocoder.source.l_linear
    sine = 0.1 * torch.sin(2 * torch.pi * (place * stored_f0 / 22050 % 1))
    expected = torch.tanh(mix.weight.double() * sine + mix.bias.double())[0]
    torch.testing.assert_close(source[0, 0, -4096:].double(), expected, atol=1e-5, rtol=0)


def test_excitation_made_in_blocks_is_continuous(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder()
    f0 = 100 + 50 * torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
    _, phase, noise = draw_input(vocoder, [40, 40])
    whole = vocoder.excitation(f0, phase=phase, noise=noise)
    cycles, blocks = None, []
    for first in range(0, 40, 8):
        own, place = f0[:, first : first + 8], slice(first * 256, (first + 8) * 256)
        blocks.append(vocoder.excitation(own, phase=phase, noise=noise[..., place], cycles=cycles))
        cycles = vocoder.source.count_cycles(own, cycles)
    torch.testing.assert_close(torch.cat(blocks, dim=-1), whole, atol=1e-6, rtol=0)


@torch.no_grad()
def test_bfloat16_stays_close_and_keeps_the_pitch(released: HiFTVocoder, expected: dict[str, Tensor]) -> None:
    case = "random_embedding.37tokens"
    vocoder = HiFTVocoder(released.config).eval()
    vocoder.load_state_dict(released.state_dict())
    vocoder.fold_weight_norm().cast_filter(torch.bfloat16)
    mel, source = expected[f"{case}.mel"], expected[f"{case}.source"]
    torch.testing.assert_close(vocoder.predict_f0(mel), released.predict_f0(mel))
    exact, rough = released.filter(mel, source), vocoder.filter(mel, source)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()
    assert vocoder.bfloat16()(mel, source=source).isfinite().all()


def test_mixed_precision_leaves_pitch_excitation_and_transforms_exact(make_vocoder: Callable[..., HiFTVocoder]) -> None:
    vocoder = make_vocoder()
    mel, phase, noise = draw_input(vocoder, [9])

    def parts() -> list[Tensor]:
        f0 = vocoder.predict_f0(mel)
        source = vocoder.excitation(f0, phase=phase, noise=noise)
        spectrum = vocoder.spectrum.analyze(source[:, 0])
        return [f0, source, spectrum, vocoder.spectrum.synthesize(spectrum[:, :9].exp(), spectrum[:, 9:])]

    expected, exact = parts(), vocoder(mel, phase=phase, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        for made, wanted in zip(parts(), expected, strict=True):
            assert torch.equal(made, wanted)
        rough = vocoder(mel, phase=phase, noise=noise)
    rough.sum().backward()
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mel": torch.zeros(1, 7, 4)}, r"must be \[B, 8, M\]"),
        ({"mel": torch.zeros(1, 8, 0)}, "at least one frame"),
        ({"mel": torch.zeros(2, 8, 4), "lengths": [4, 5]}, r"lengths \[4, 5\] do not fit"),
        ({"mel": torch.zeros(2, 8, 4), "lengths": [4]}, "do not fit 2 rows"),
        ({"mel": torch.zeros(2, 8, 4), "lengths": [4, 0]}, "do not fit"),
        ({"mel": torch.zeros(1, 8, 4), "source": torch.zeros(1, 1, 2000)}, r"source has shape \[1, 1, 2000\]"),
        ({"mel": torch.zeros(1, 8, 4), "phase": torch.zeros(1, 4)}, r"must be \[1, 3\]"),
        ({"mel": torch.zeros(1, 8, 4), "noise": torch.zeros(1, 3, 5)}, r"\[1, 3, 1024\]"),
        ({"mel": torch.zeros(1, 8, 4), "generator": [torch.Generator(), torch.Generator()]}, "2 generators for 1 rows"),
    ],
)
def test_misfits_are_named(arguments: dict[str, Any], words: str, make_vocoder: Callable[..., HiFTVocoder]) -> None:
    with pytest.raises(ValueError, match=words):
        make_vocoder()(**arguments)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"upsample_kernel_sizes": (16, 15)}, "15 for the rate 8"),
        ({"istft_n_fft": 15}, "n_fft=15 must be even"),
        ({"istft_n_fft": 4}, "at least twice"),
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HiFTVocoder(VocoderConfig(**sizes))
