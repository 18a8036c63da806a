"""Gates of clips, noises and mixes, on a tokenizer whose gate is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiollm.data.audio.degradation import coloured_noise
from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig
from audiollm.training.recipes.gates import gate_by_token, has_gate, mean_gate_of_clips, mean_gate_of_mixes


def make_tokenizer(**changes: object) -> UniAudioTokenizer:
    settings = {
        "num_mel_bins": 80, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "max_source_positions": 1500, "pooling_kernel_size": 2, "pooling_position": 0, "quantize_position": 2,
        "quantize_vocab_size": 32, "quantize_encoder_only": True, "encoder_residual_source_position": 1,
        "encoder_residual_target_position": 2, "use_residual_adapter": True, "use_residual_gate": True,
    }  # fmt: skip
    torch.manual_seed(0)
    return UniAudioTokenizer(UniAudioTokenizerConfig(**(settings | changes))).eval()


def make_noise(num_samples: int, colour: str = "white") -> torch.Tensor:
    if num_samples == 0:
        return torch.zeros(0)
    return 0.1 * coloured_noise(num_samples, 16000, colour, np.random.default_rng(0))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenizer() -> UniAudioTokenizer:
    return make_tokenizer()


def test_gates_of_tokens_are_those_of_the_forward_pass(tokenizer: UniAudioTokenizer) -> None:
    waveform = make_noise(16000)  # a whole number of tokens, so that nothing is padded
    gates = gate_by_token(tokenizer, waveform)
    assert gates.shape == (25,)
    with torch.no_grad():
        expected = tokenizer(tokenizer.log_mel(waveform[None])).gate_mean
    assert float(gates.mean()) == pytest.approx(float(expected), abs=1e-5)


def test_there_is_a_gate_for_each_code_of_clips_of_all_lengths(tokenizer: UniAudioTokenizer) -> None:
    for num_samples in (0, 500, 12345, 31 * 16000):
        waveform = make_noise(num_samples)
        assert len(gate_by_token(tokenizer, waveform)) == len(tokenizer.encode(waveform, 16000).tolist()[0])


def test_a_gate_held_open_or_shut_is_measured_as_such() -> None:
    tokenizer = make_tokenizer()
    for bias, expected in ((20.0, 1.0), (-20.0, 0.0)):
        with torch.no_grad():
            tokenizer.sae.gate[2].weight.zero_()
            tokenizer.sae.gate[2].bias.fill_(bias)
        assert mean_gate_of_clips(tokenizer, [make_noise(4000)]) == pytest.approx(expected, abs=1e-4)


def test_each_clip_counts_the_same_however_long(tokenizer: UniAudioTokenizer) -> None:
    short, long = make_noise(1600), make_noise(32000, colour="pink")
    means = [float(gate_by_token(tokenizer, clip).mean()) for clip in (short, long)]
    assert mean_gate_of_clips(tokenizer, [short, long, torch.zeros(0)]) == pytest.approx(sum(means) / 2)
    assert mean_gate_of_clips(tokenizer, []) is None


def test_a_mix_tends_to_its_louder_part(tokenizer: UniAudioTokenizer) -> None:
    tone = 0.2 * torch.sin(torch.arange(8000) * 0.2)
    noise = make_noise(3000)
    gates = mean_gate_of_mixes(tokenizer, [tone, tone], [noise], snrs_db=(-60, 0, 60))
    assert list(gates) == [-60, 0, 60]
    alone = mean_gate_of_clips(tokenizer, [tone]), mean_gate_of_clips(tokenizer, [noise.repeat(3)[:8000]])
    assert abs(gates[60] - alone[0]) < abs(gates[60] - alone[1])
    assert mean_gate_of_mixes(tokenizer, [tone], []) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"use_residual_gate": False},
        {"quantize_position": 1, "encoder_residual_target_position": 2, "quantize_encoder_only": False},
        {"encoder_residual_source_position": None, "encoder_residual_target_position": None},
    ],
)
def test_a_tokenizer_without_a_gate_that_matters_is_refused(changes: dict[str, object]) -> None:
    tokenizer = make_tokenizer(**changes)
    assert not has_gate(tokenizer)
    with pytest.raises(ValueError, match="no gate that reaches its codes"):
        gate_by_token(tokenizer, make_noise(1600))
