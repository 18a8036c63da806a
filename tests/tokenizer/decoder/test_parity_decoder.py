"""Codes to mel to sound equals the reference, part by part and from one end to the other, in training too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer.decoder.checkpoints.released import read_released_config
from audiollm.tokenizer.decoder.flow.masking import FrameMask
from audiollm.tokenizer.decoder.flow.matching import FlowDraws
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.inputs import VoicePrompt
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.decoder.streaming.decoder import StreamingDecoder
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder

SEED = 42
PITCH_ATOL = 5e-3  # of samples whose pitch was computed too: its rounding adds up over the phase


@pytest.fixture(scope="module")
def decoder(decoder_folder: Path) -> WaveformDecoder:
    return WaveformDecoder.from_pretrained(decoder_folder)


@pytest.fixture(scope="module")
def expected(decoder_folder: Path) -> dict[str, Tensor]:
    return load_file(decoder_folder / "io.safetensors")


@pytest.fixture(scope="module")
def flow(decoder_folder: Path) -> FlowModel:
    """Without dropout in training mode, as the recorded step had none."""
    config = read_released_config(decoder_folder / "config.yaml")
    encoder = dataclasses.replace(config.flow.encoder, dropout=0.0, positional_dropout=0.0, attention_dropout=0.0)
    model = FlowModel(dataclasses.replace(config.flow, encoder=encoder), config.mel).eval()
    model.load_state_dict(torch.load(decoder_folder / "flow.pt", weights_only=True))
    return model


@pytest.fixture(scope="module")
def vocoder(decoder: WaveformDecoder) -> HiFTVocoder:
    return decoder.vocoder


def cases_of(expected: dict[str, Tensor], name: str) -> list[str]:
    """The cases that hold something under this name; there is at least one."""
    cases = sorted({one.rsplit(".", 1)[0] for one in expected if one.endswith(f"tokens.{name}")})
    assert cases
    return cases


def close(actual: Tensor, wanted: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual, wanted, atol=atol, rtol=0)


# ------------------------------------------------------------------- whole path


def test_seed_42_gives_the_reference_from_codes_to_speech(
    decoder: WaveformDecoder, expected: dict[str, Tensor]
) -> None:
    for case in cases_of(expected, "mel"):
        codes, speaker = expected[f"{case}.token"], expected[f"{case}.embedding"]
        close(decoder.mel(codes, speaker=speaker), expected[f"{case}.mel"])
        (waveform,) = decoder.decode(codes, speaker=speaker)
        close(waveform[None], expected[f"{case}.speech"], PITCH_ATOL)


def test_recorded_noise_and_source_are_obeyed(decoder: WaveformDecoder, expected: dict[str, Tensor]) -> None:
    for case in cases_of(expected, "z"):
        codes, speaker, noise = (expected[f"{case}.{name}"] for name in ("token", "embedding", "z"))
        close(decoder.mel(codes, speaker=speaker, noise=noise, seed=1), expected[f"{case}.mel"])
        other = decoder.mel(codes, speaker=speaker, noise=noise.flip(2))
        assert not torch.allclose(other, expected[f"{case}.mel"], atol=1e-2)
        source = expected[f"{case}.source"]
        for form in (source, source[:, 0], source[0, 0]):
            close(decoder.vocode(expected[f"{case}.mel"], form), expected[f"{case}.speech"])
    both_rows = decoder.vocode(expected["hift_no_noise.mel"], expected["hift_no_noise.source"])
    close(both_rows, expected["hift_no_noise.speech"], 1e-3)


def test_a_prompt_is_continued_as_the_reference_does(decoder: WaveformDecoder, expected: dict[str, Tensor]) -> None:
    codes, mel = expected["prompt.prompt_token"], expected["prompt.prompt_feat"]  # [1, P] and [1, Q, C]
    forms: list[Any] = [(codes, mel), (codes, mel.transpose(1, 2)), VoicePrompt(codes[0], mel[0].T)]
    for prompt in forms:
        made = decoder.mel(expected["prompt.token"], speaker=expected["prompt.embedding"], prompt=prompt)
        close(made, expected["prompt.mel"])


def test_the_published_scheme_of_streaming_equals_the_reference(decoder: WaveformDecoder, decoder_folder: Path) -> None:
    expected = load_file(decoder_folder / "stream.safetensors")
    stream = StreamingDecoder(decoder, steps=10, reference=True)
    made = torch.cat([*(stream.push(piece) for piece in expected["token"][0].split(3)), stream.finish()])
    chunks = sorted((name for name in expected if name.endswith(".speech")), key=lambda name: int(name[5:-7]))
    close(made, torch.cat([expected[name][0] for name in chunks]), PITCH_ATOL)


# -------------------------------------------------------------------- flow model


def test_mels_equal_the_reference(flow: FlowModel, expected: dict[str, Tensor]) -> None:
    for case in cases_of(expected, "mel"):
        codes, speaker = expected[f"{case}.token"], expected[f"{case}.embedding"]
        lengths = torch.tensor([codes.shape[1]])
        mu, mask = flow.condition(codes, lengths, flow.num_mel_frames(lengths))
        assert mask is None
        close(mu, expected[f"{case}.mu"])
        close(flow.project_speaker(speaker, 1), expected[f"{case}.spks"])
        mel, mel_lengths = flow.mel(codes, speaker=speaker, generator=torch.Generator().manual_seed(SEED))
        close(mel, expected[f"{case}.mel"])
        assert mel_lengths.tolist() == [mel.shape[2]]


def test_frame_counts_equal_the_reference(flow: FlowModel, expected: dict[str, Tensor]) -> None:
    if "feat_len_by_token_len" not in expected:
        pytest.skip("this set does not hold them")
    wanted = expected["feat_len_by_token_len"].flatten()
    assert torch.equal(flow.num_mel_frames(torch.arange(1, len(wanted) + 1)), wanted.long())


@torch.no_grad()
def test_the_parts_equal_the_reference_with_its_padding(flow: FlowModel, expected: dict[str, Tensor]) -> None:
    codes, lengths, frames = (expected[f"internals.{name}"] for name in ("token", "token_len", "feat_len"))
    close(flow.encoder(flow.embed(codes, lengths), lengths), expected["internals.encoder_out"])
    reach = codes.shape[1] - 1
    close(flow.encoder.sinusoids(reach, -reach, expected["internals.pos_emb"]), expected["internals.pos_emb"])
    mu, _ = flow.condition(codes, lengths, frames, padding="reference")
    close(mu.transpose(1, 2), expected["internals.regulated"])
    x, mask, mu, t, speaker, condition = (
        expected[f"estimator.{name}"] for name in ("x", "mask", "mu", "t", "spks", "cond")
    )
    frame_mask = FrameMask.make(mask.sum((1, 2)).long(), x.shape[2], x, "reference")
    estimator = flow.decoder.estimator
    close(estimator(x, frame_mask, mu, t, speaker, condition), expected["estimator.out"])
    close(estimator.time_mlp.sinusoids(t), expected["estimator.time_embedding"])


def test_training_loss_and_gradients_equal_the_reference(flow: FlowModel, expected: dict[str, Tensor]) -> None:
    draws = FlowDraws(
        t=expected["train.t_uniform"].flatten(),
        z=expected["train.z"],
        keep_condition=expected["train.cfg_uniform"] > flow.config.training_guidance_dropout,
        prompt_frames=expected["train.prompt_frames"],
    )
    flow.train().zero_grad()
    loss = flow.loss(
        expected["internals.token"],
        expected["internals.token_len"],
        expected["train.speech_feat"].transpose(1, 2),
        expected["internals.feat_len"],
        expected["train.embedding"],
        draws=draws,
    )
    loss.backward()
    flow.eval()
    torch.testing.assert_close(loss.detach(), expected["train.loss"][0], rtol=1e-5, atol=0)
    gradients = {name.removeprefix("train.grad."): wanted for name, wanted in expected.items() if ".grad." in name}
    assert gradients
    for name, wanted in gradients.items():  # some are recorded in their first rows only
        gradient = flow.get_parameter(name).grad
        assert gradient is not None
        torch.testing.assert_close(gradient[: len(wanted)], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(flow: FlowModel, expected: dict[str, Tensor]) -> None:
    case = cases_of(expected, "mel")[0]
    try:
        mel, _ = flow.cuda().mel(
            expected[f"{case}.token"],
            speaker=expected[f"{case}.embedding"],
            generator=torch.Generator().manual_seed(SEED),
        )
        close(mel.cpu(), expected[f"{case}.mel"], 2e-3)  # convolutions may use TF32
    finally:
        flow.cpu()


# ----------------------------------------------------------------------- vocoder


def test_waveform_equals_the_reference_from_the_seed_on(vocoder: HiFTVocoder, expected: dict[str, Tensor]) -> None:
    for case in cases_of(expected, "f0"):
        mel = expected[f"{case}.mel"]
        generator = torch.Generator().manual_seed(SEED)
        torch.randn(mel.shape, generator=generator)  # what the flow model draws
        close(vocoder.predict_f0(mel), expected[f"{case}.f0"], 1e-3)
        waveform = vocoder(mel, generator=generator)
        close(waveform, expected[f"{case}.speech"], PITCH_ATOL)
        assert (waveform - expected[f"{case}.speech"]).abs().mean() < 1e-4


def test_waveform_equals_the_reference_from_its_source(vocoder: HiFTVocoder, expected: dict[str, Tensor]) -> None:
    for case in cases_of(expected, "source"):
        waveform = vocoder(expected[f"{case}.mel"], source=expected[f"{case}.source"])
        close(waveform, expected[f"{case}.speech"], 1e-5)


def silence(vocoder: HiFTVocoder, mel: Tensor) -> dict[str, Tensor]:
    """Phases and noise of 0 for every harmonic."""
    rows, harmonics = mel.shape[0], vocoder.config.num_harmonics + 1
    return {
        "phase": torch.zeros(rows, harmonics),
        "noise": torch.zeros(rows, harmonics, mel.shape[2] * vocoder.config.hop_length),
    }


def test_batch_without_noise_equals_the_reference(vocoder: HiFTVocoder, expected: dict[str, Tensor]) -> None:
    mel = expected["hift_no_noise.mel"]
    f0 = vocoder.predict_f0(mel)
    close(f0, expected["hift_no_noise.f0"], 1e-3)
    close(vocoder.excitation(f0, **silence(vocoder, mel)), expected["hift_no_noise.source"], 1e-3)
    close(vocoder(mel, **silence(vocoder, mel)), expected["hift_no_noise.speech"])


def test_given_source_overwrites_the_start(vocoder: HiFTVocoder, expected: dict[str, Tensor]) -> None:
    mel = expected["hift_no_noise.mel"][:1]
    waveform = vocoder(mel, source=expected["hift_no_noise.cache_source"], **silence(vocoder, mel))
    close(waveform, expected["hift_no_noise.cached_speech"])
