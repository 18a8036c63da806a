"""Codes to sound: parity with the reference from one end to the other, batches, long rows, prompts, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import Codes
from audiollm.tokenizer.decoder import batching
from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)
from audiollm.tokenizer.decoder.inputs import DecoderInputs, VoicePrompt
from audiollm.tokenizer.decoder.model import WaveformDecoder

FIXTURES = Path(__file__).parents[2] / "fixtures" / "parity" / "decoder"


@pytest.fixture(scope="module")
def decoder() -> WaveformDecoder:
    return WaveformDecoder.from_pretrained(FIXTURES)


@pytest.fixture(scope="module")
def tiny() -> WaveformDecoder:
    """Of the smallest sizes, for what needs many codes."""
    torch.manual_seed(3)
    config = WaveformDecoderConfig(
        flow=FlowConfig(
            codebook_size=16,
            embedding_size=8,
            encoder=TokenEncoderConfig(size=8, num_heads=2, feed_forward_size=8, num_blocks=1),
            estimator=EstimatorConfig(channels=(8,), num_heads=1, head_dim=8, blocks_per_stage=1, num_mid_stages=1),
        ),
        vocoder=VocoderConfig(
            base_channels=8,
            f0_channels=4,
            resblock_kernel_sizes=(3,),
            resblock_dilations=((1,),),
            source_resblock_kernel_sizes=(3, 3),
            source_resblock_dilations=((1,), (1,)),
        ),
    )
    return WaveformDecoder(config).eval().prepare()


def codes_of(length: int, seed: int = 0, codebook_size: int = 64) -> Tensor:
    return torch.randint(0, codebook_size, (length,), generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------- batch = single


def test_a_row_sounds_the_same_in_any_batch(decoder: WaveformDecoder) -> None:
    rows = [codes_of(length, seed=length) for length in (1, 23, 0, 40, 8)]
    speakers = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))
    prompt = VoicePrompt(codes_of(10), torch.randn(80, 34, generator=torch.Generator().manual_seed(2)))
    together = decoder.decode(rows, speaker=speakers, prompt=prompt, steps=3)
    for row, speaker, waveform in zip(rows, speakers, together, strict=True):
        (alone,) = decoder.decode(row, speaker=speaker, prompt=prompt, steps=3)
        assert len(waveform) == len(alone)
        torch.testing.assert_close(waveform, alone, atol=5e-4, rtol=0)  # pitch adds up


def test_every_form_of_codes_gives_the_same(decoder: WaveformDecoder) -> None:
    rows = [codes_of(9, 1), codes_of(6, 2)]
    expected = decoder.decode(rows, steps=2)
    codes = Codes.from_list([row[None] for row in rows])
    forms: list[Any] = [codes, [row[None].int() for row in rows], [row.tolist() for row in rows]]
    for form in forms:
        for waveform, wanted in zip(decoder.decode(form, steps=2), expected, strict=True):
            assert torch.equal(waveform, wanted)
    for single in (rows[0], rows[0][None], rows[0][None, None], rows[0].tolist()):
        torch.testing.assert_close(decoder.decode(single, steps=2)[0], expected[0], atol=1e-4, rtol=0)
    garbage = codes.codes[:, 0].clone()
    garbage[1, 6:] = -5  # behind the end: anything
    mel = decoder.mel(garbage, lengths=codes.lengths, steps=2)
    torch.testing.assert_close(mel, decoder.mel(rows, steps=2))
    assert mel.shape == (2, 80, decoder.flow.num_mel_frames(9))
    assert not mel[1, :, decoder.flow.num_mel_frames(6) :].any()


def test_one_code_no_codes_and_no_rows(decoder: WaveformDecoder) -> None:
    one, none = decoder.decode([codes_of(1), codes_of(0)])
    assert len(one) == decoder.num_samples(1) == 3 * 256
    assert one.abs().max() > 0
    assert none.shape == (0,)
    assert decoder.decode([]) == []
    assert decoder.decode(Codes.from_list([])) == []
    with pytest.raises(ValueError, match="without codes has no mel"):
        decoder.mel([codes_of(3), codes_of(0)])


def test_the_seed_decides_and_global_randomness_is_left_alone(decoder: WaveformDecoder) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (decoder.decode(codes_of(7), seed=seed, steps=2)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_speaker_and_guidance_have_an_effect(decoder: WaveformDecoder) -> None:
    codes = codes_of(12)
    neutral = decoder.mel(codes, steps=3)
    assert torch.equal(decoder.mel(codes, speaker=torch.zeros(192), steps=3), neutral)
    assert not torch.allclose(decoder.mel(codes, speaker=torch.ones(192), steps=3), neutral, atol=1e-3)
    assert torch.equal(decoder.mel(codes, guidance=0.7, steps=3), neutral)  # the checkpoint's own
    assert not torch.allclose(decoder.mel(codes, guidance=0.0, steps=3), neutral, atol=1e-3)


def test_decoding_is_without_dropout_and_without_gradients(decoder: WaveformDecoder) -> None:
    assert not any(module.training for module in decoder.modules())
    assert not decoder.mel(codes_of(5), steps=1).requires_grad


def test_bfloat16_stays_close(decoder: WaveformDecoder) -> None:
    half = WaveformDecoder.from_pretrained(FIXTURES, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    codes = codes_of(30)
    mel, exact = half.mel(codes), decoder.mel(codes)
    assert mel.dtype == torch.float32
    assert (mel - exact).abs().mean() < 0.05
    waveform = half.decode(codes)[0]
    assert waveform.dtype == torch.float32
    assert bool(torch.isfinite(waveform).all())


@pytest.mark.gpu
def test_the_gpu_sounds_as_the_cpu(decoder: WaveformDecoder) -> None:
    on_gpu = WaveformDecoder.from_pretrained(FIXTURES, device="cuda")
    rows = [codes_of(37), codes_of(20)]
    for waveform, expected in zip(on_gpu.decode(rows), decoder.decode(rows), strict=True):
        assert waveform.device.type == "cpu"
        torch.testing.assert_close(waveform, expected, atol=5e-3, rtol=0)


# ------------------------------------------------------------------- long rows


@pytest.mark.parametrize(
    ("num_codes", "num_frames"), [(2_000, 6_890), pytest.param(15_000, 51_679, marks=pytest.mark.slow)]
)
def test_ten_minutes_of_codes(tiny: WaveformDecoder, num_codes: int, num_frames: int) -> None:
    (waveform,) = tiny.decode(codes_of(num_codes, codebook_size=16), steps=1)
    assert len(waveform) == tiny.num_samples(num_codes) == num_frames * 256
    assert bool(torch.isfinite(waveform).all())
    assert waveform[-22050:].abs().max() > 0


def test_windows_keep_the_frame_grid_and_their_context(
    decoder: WaveformDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = codes_of(83)
    prompt = VoicePrompt(codes_of(11, 4), decoder.mel(codes_of(11, 4)))
    whole = decoder.mel(codes, prompt=prompt)
    monkeypatch.setattr(batching, "MAX_WHOLE_SECONDS", 1)
    monkeypatch.setattr(batching, "WINDOW_SECONDS", 1)
    monkeypatch.setattr(batching, "CONTEXT_SECONDS", 0.8)
    monkeypatch.setattr(batching, "LOOKAHEAD_SECONDS", 0.4)
    windowed = decoder.mel(codes, prompt=prompt)
    assert windowed.shape == whole.shape
    other_seed = (decoder.mel(codes, prompt=prompt, seed=1) - whole).abs().mean()  # about 1.2
    for part in (windowed - whole).abs().split(20, dim=2):  # 0.2; 0.8 where frames lie off the estimator's grid
        assert part.mean() < 0.4 * other_seed
    rate = decoder.config.mel.frame_rate / decoder.frame_rate
    # Changing a code far ahead does not reach back before its window.
    changed = codes.clone()
    changed[-1] = (changed[-1] + 1) % 64
    again = decoder.mel(changed, prompt=prompt)
    assert torch.equal(again[..., : int(40 * rate)], windowed[..., : int(40 * rate)])
    assert not torch.allclose(again, windowed)


def test_long_rows_join_batches_without_changing(tiny: WaveformDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_WHOLE_SECONDS", 2)
    monkeypatch.setattr(batching, "WINDOW_SECONDS", 2)
    monkeypatch.setattr(batching, "MAX_BATCH_FRAMES", 300)
    rows = [codes_of(length, length, 16) for length in (120, 40, 10, 160, 45, 12)]
    groups = list(batching.group_rows(tiny.flow, DecoderInputs(rows)))
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert [0] in groups
    assert [3] in groups
    for group in groups:
        frames = [tiny.flow.num_mel_frames(len(rows[index])) for index in group]
        assert len(group) == 1 or max(frames) * len(group) <= 300
        assert sum(max(frames) - count for count in frames) <= 0.1 * max(frames) * len(group)
    for row, waveform in zip(rows, tiny.decode(rows, steps=2), strict=True):
        torch.testing.assert_close(waveform, tiny.decode(row, steps=2)[0], atol=1e-4, rtol=0)


def test_rows_of_like_length_share_a_batch_whatever_their_order(tiny: WaveformDecoder) -> None:
    rows = [codes_of(length, length, 16) for length in (100, 30, 98, 31, 30)]
    groups = [sorted(group) for group in batching.group_rows(tiny.flow, DecoderInputs(rows))]
    assert groups == [[1, 3, 4], [0, 2]]


# --------------------------------------------------------------------- prompts


def test_a_prompt_is_made_of_a_recording_and_its_codes(decoder: WaveformDecoder) -> None:
    waveform = torch.sin(torch.arange(16_100) * 0.05) * 0.3
    prompt = decoder.prompt(waveform, 16_000, codes_of(26)[None])  # the last code stands for 100 samples of sound
    assert torch.equal(prompt.codes, codes_of(26)[:25])
    assert prompt.mel.shape == (80, 86)
    assert len(decoder.decode(codes_of(5), prompt=prompt, steps=1)[0]) > 0


def test_a_prompt_of_another_recording_is_refused(decoder: WaveformDecoder) -> None:
    with pytest.raises(ValueError, match=r"60 codes \(2.40 s\) but 86 mel frames \(1.00 s\)"):
        decoder.prompt(torch.zeros(16_000), 16_000, codes_of(60))
    with pytest.raises(ValueError, match="one recording"):
        decoder.prompt(torch.zeros(16_000), 16_000, [codes_of(20), codes_of(20)])  # type: ignore[arg-type]


# ------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([3, 64]), r"range from 3 to 64.*\[0, 64\)"),
        (torch.tensor([-1, 3]), r"range from -1 to 3"),
        (torch.tensor([1.0, 2.0]), "torch.float32; pass int64"),
        (torch.tensor([True]), "torch.bool"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), r"\[2, 3, 4\]: this decoder knows one codebook"),
        (torch.zeros(1, 1, 1, 4, dtype=torch.int64), r"shape \[1, 1, 1, 4\]"),
        (torch.tensor(3), r"shape \[\]"),
        ([torch.zeros(2, 3, dtype=torch.int64)], r"clip 0 has codes of shape \[2, 3\]"),
        ([[1, 2.5]], "clip 0 is"),
        ([[1, 99]], "range from 1 to 99"),
        (["12"], "clip 0 is '12'"),
        ("12", "codes are a str"),
        (None, "codes are a NoneType"),
    ],
)
def test_wrong_codes_are_refused(decoder: WaveformDecoder, codes: Any, message: str) -> None:
    for call in (decoder.decode, decoder.mel):
        with pytest.raises(ValueError, match=message):
            call(codes)


def vector(value: float) -> Tensor:
    filled = torch.zeros(192)
    filled[7] = value
    return filled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speaker": torch.zeros(256)}, r"speaker has shape \[256\].*192"),
        ({"speaker": torch.zeros(3, 192)}, r"speaker has shape \[3, 192\]"),
        ({"speaker": vector(math.nan)}, "speaker holds NaN"),
        ({"speaker": vector(math.inf)}, "speaker holds NaN or infinity"),
        ({"speaker": torch.zeros(192, dtype=torch.int64)}, "speaker vectors are torch.int64"),
        ({"prompt": (torch.zeros(5).long(), torch.zeros(80, 170))}, r"5 codes \(0.20 s\) but 170 mel frames"),
        ({"prompt": (torch.zeros(5).long(), torch.zeros(40, 17))}, r"\[40, 17\]; pass floats \[80, Q\]"),
        ({"prompt": (torch.full((5,), 64), torch.zeros(80, 17))}, "range from 64"),
        ({"prompt": (torch.zeros(5).long(), torch.full((80, 17), math.nan))}, "prompt mel holds NaN"),
        ({"prompt": (torch.zeros(3, 5).long(), torch.zeros(3, 80, 17))}, "3 rows of codes"),
        ({"prompt": (torch.zeros(5).long(), torch.zeros(80, 0))}, "0 mel frames"),
        ({"prompt": torch.zeros(5)}, "must be a VoicePrompt"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"guidance": math.nan}, "guidance=nan"),
        ({"guidance": -1.0}, "guidance=-1.0"),
        ({"seed": 1.5}, "seed=1.5"),
    ],
)
def test_wrong_conditions_are_refused(decoder: WaveformDecoder, options: dict[str, Any], message: str) -> None:
    for call in (decoder.decode, decoder.mel):
        with pytest.raises(ValueError, match=message):
            call(torch.zeros(2, 4, dtype=torch.int64), **options)


def test_wrong_lengths_noise_mel_and_source_are_refused(decoder: WaveformDecoder) -> None:
    codes = torch.zeros(2, 4, dtype=torch.int64)
    for lengths in ([4], [4, 5], [-1, 4]):
        with pytest.raises(ValueError, match="do not fit 2 rows of 4 codes"):
            decoder.mel(codes, lengths=lengths)
    for shape in ((2, 80, 14), (1, 80, 13), (2, 79, 13)):
        with pytest.raises(ValueError, match=r"need \[2, 80, 13\]"):
            decoder.mel(codes, noise=torch.zeros(shape))
    with pytest.raises(ValueError, match="noise holds NaN"):
        decoder.mel(codes, noise=torch.full((2, 80, 13), math.nan))
    for shape in ((1, 79, 5), (1, 80, 0), (1, 1, 80, 5)):
        with pytest.raises(ValueError, match=r"\[B, 80, M\]"):
            decoder.vocode(torch.zeros(shape))
    with pytest.raises(ValueError, match="mel holds NaN"):
        decoder.vocode(torch.full((1, 80, 5), math.nan))
    for shape in ((1, 1, 1281), (2, 1, 1280), (1, 2, 1280)):
        with pytest.raises(ValueError, match=r"needs \[1, 1, 1280\]"):
            decoder.vocode(torch.zeros(1, 80, 5), torch.zeros(shape))
    with pytest.raises(ValueError, match="lengths"):
        decoder.vocode(torch.zeros(1, 80, 5), lengths=[6])


def test_facts(decoder: WaveformDecoder) -> None:
    facts = (decoder.codebook_size, decoder.frame_rate, decoder.sample_rate, decoder.speaker_size)
    assert facts == (64, 25.0, 22050, 192)
    expected = json.loads((FIXTURES / "meta.json").read_text(encoding="utf-8"))["zero_embedding.37tokens"]["samples"]
    assert decoder.num_samples(37) == expected
