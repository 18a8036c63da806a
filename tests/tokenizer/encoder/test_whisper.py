"""Properties of the layers: causality, blocks, pooling, the linear kernel, and the SAE."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.encoder.sae import SemanticAcousticEquilibrium, gate_per_frame, mean_gate, mean_gate_per_clip
from audiollm.tokenizer.encoder.whisper import causal_blocks
from audiollm.tokenizer.linear import Linear, linear

Make = Callable[..., UniAudioTokenizer]


def hidden_of(model: UniAudioTokenizer, features: Tensor, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model.pre_quantizer_features(features, mask)


@pytest.mark.parametrize("switch", ["encoder_causal_attention", "quantize_causal_encoder"])
def test_causal_encoder_never_looks_ahead(make_tokenizer: Make, switch: str) -> None:
    model = make_tokenizer(encoder_causal_convolution=True, **{switch: True})
    features = torch.randn(1, 80, 64)
    prefix = hidden_of(model, features[:, :, :32])
    torch.testing.assert_close(hidden_of(model, features)[:, : prefix.shape[1]], prefix, atol=1e-5, rtol=0)


def test_causality_in_front_of_the_quantizer_only(make_tokenizer: Make) -> None:
    model = make_tokenizer(quantize_causal_encoder=True)
    assert [model.encoder.is_causal(position) for position in (1, 2, 3, 4)] == [True, True, True, False]


def test_block_causal_encoder_looks_ahead_within_its_block_only(make_tokenizer: Make) -> None:
    model = make_tokenizer(encoder_causal_convolution=True, quantize_causal_block_size=8, pooling_position=3)
    features = torch.randn(1, 80, 64)  # 32 encoder frames, 4 blocks
    changed = features.clone()
    changed[:, :, 40:] += 1  # encoder frames 20 to 31: in the third and fourth block
    difference = (hidden_of(model, features) - hidden_of(model, changed)).abs().amax(dim=(0, 2))
    assert (difference[:8] < 1e-5).all()  # tokens of the first two blocks
    assert difference[8] > 1e-4  # frame 16 sees frame 20 of its block


def test_visible_frames_of_a_block() -> None:
    assert causal_blocks(5, 2, torch.device("cpu"))[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_padding_is_not_heard(make_tokenizer: Make) -> None:
    model = make_tokenizer()
    features, mask = torch.randn(1, 80, 64), torch.ones(1, 64, dtype=torch.int64)
    mask[:, 32:] = 0
    other = features.clone()
    other[:, :, 40:] = 9.0  # well behind the end, beyond the convolutions' reach
    torch.testing.assert_close(
        hidden_of(model, features, mask)[:, :8], hidden_of(model, other, mask)[:, :8], atol=1e-6, rtol=0
    )


def test_a_fully_padded_row_stays_finite(make_tokenizer: Make) -> None:
    for overrides in ({}, {"quantize_causal_block_size": 8}):
        model = make_tokenizer(**overrides)
        with torch.no_grad():
            output = model(torch.randn(2, 80, 32), torch.tensor([[1] * 32, [0] * 32]))
        assert torch.isfinite(output.last_hidden_state).all()


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_pooling_equals_a_loop(make_tokenizer: Make, kernel: int) -> None:
    frames = torch.randn(2, 11, 16)
    padded = torch.cat([frames, torch.zeros(2, -11 % kernel, 16)], dim=1)
    groups = padded.split(kernel, dim=1)
    for kind, merge in (("avg", lambda group: group.mean(dim=1)), ("max", lambda group: group.amax(dim=1))):
        encoder = make_tokenizer(pooling_kernel_size=kernel, pooling_type=kind).encoder
        torch.testing.assert_close(encoder.pool(frames), torch.stack([merge(group) for group in groups], dim=1))


def test_odd_numbers_of_mel_frames(tokenizer: UniAudioTokenizer) -> None:
    with torch.no_grad():
        assert tokenizer(torch.randn(1, 80, 61), torch.ones(1, 61)).codes.shape == (1, 16)


def test_mask_may_be_left_out(tokenizer: UniAudioTokenizer) -> None:
    features = torch.randn(2, 80, 40)
    with torch.no_grad():
        output, masked = tokenizer(features), tokenizer(features, torch.ones(2, 40))
    assert torch.equal(output.codes, masked.codes)
    torch.testing.assert_close(output.gate_mean, masked.gate_mean)


def test_wrong_features_are_refused(make_tokenizer: Make) -> None:
    model = make_tokenizer(max_source_positions=50)
    with pytest.raises(ValueError, match="128 mel bins, but the encoder takes 80"):
        model(torch.randn(1, 128, 40))
    with pytest.raises(ValueError, match="102 frames, but the encoder has positions for 100"):
        model(torch.randn(1, 80, 102))
    with pytest.raises(ValueError, match=r"codes have shape \[1, 4\].*\[1, 10\]"):
        model(torch.randn(1, 80, 40), codes=torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[0, 24\)"):
        model(torch.randn(1, 80, 40), codes=torch.full((1, 10), 24))


def test_training_step_reaches_every_parameter_in_front_of_the_loss(make_tokenizer: Make) -> None:
    model = make_tokenizer().train()
    output = model(torch.randn(2, 80, 40), torch.ones(2, 40))
    (output.quantizer_loss + output.last_hidden_state.sum()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"encoder.embed_positions.weight", "codebook.weight"}
    assert int(model.codebook.num_updates) == 1


def test_linear_equals_torch() -> None:
    layer = Linear(48, 33)
    for shape in ((5, 48), (2, 7, 48), (0, 48)):
        features = torch.randn(shape)
        with torch.no_grad():
            result = layer(features)
        torch.testing.assert_close(result, F.linear(features, layer.weight, layer.bias), atol=1e-5, rtol=0)
    assert layer(torch.randn(3, 48)).requires_grad  # the fast kernel has no derivative, so training goes the other way
    features = torch.randn(3, 48, requires_grad=True)
    assert linear(features, torch.randn(4, 48)).requires_grad


@pytest.mark.parametrize("use_gate", [True, False])
@pytest.mark.parametrize("use_adapter", [True, False])
def test_sae_computes_its_equation(use_adapter: bool, use_gate: bool) -> None:
    sae = SemanticAcousticEquilibrium(6, use_adapter=use_adapter, use_gate=use_gate).eval()
    deep, shallow = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    fused, gate = sae(deep, shallow)
    residual = sae.adapter(shallow) if use_adapter else shallow
    weight = sae.gate(torch.cat([deep, shallow], dim=-1)) if use_gate else 1.0
    torch.testing.assert_close(fused, sae.norm(deep + weight * residual))
    assert (gate is not None) == use_gate


def test_mean_gate_counts_valid_frames_only() -> None:
    gate = torch.full((1, 4, 3), 0.25)
    gate[:, 2:] = 0.9
    mask = torch.tensor([[1, 1, 0, 0]])
    frames = gate_per_frame(gate, gate)
    assert float(mean_gate(frames, mask)) == pytest.approx(0.25)
    assert mean_gate_per_clip(frames, mask).tolist() == pytest.approx([0.25])
    assert float(mean_gate(gate_per_frame(None, gate), mask)) == 1.0
