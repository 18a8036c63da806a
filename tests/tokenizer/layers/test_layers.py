"""Layers that tokenizers share: lengths, causality, the inverse transform, conditions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.encodec.modeling_encodec import EncodecEncoder

from audiollm.tokenizer.layers.istft import InverseSTFTHead
from audiollm.tokenizer.layers.position import AttentionBlock, position_net
from audiollm.tokenizer.layers.seanet import SeanetDecoder, SeanetEncoder, SeanetSizes
from audiollm.tokenizer.layers.vocos import AdaptiveLayerNorm, VocosBackbone


def sizes(**changes: Any) -> SeanetSizes:
    return SeanetSizes(**{"num_filters": 2, "strides": (5, 3), "feature_size": 6, **changes})


@pytest.mark.parametrize("num_samples", [1, 14, 15, 16, 100])
@pytest.mark.parametrize("changes", [{}, {"is_bidirectional": True, "activation": "Snake"}, {"is_causal": True}])
def test_a_frame_begins_at_every_hop(changes: dict[str, Any], num_samples: int) -> None:
    features = SeanetEncoder(sizes(**changes))(torch.randn(2, 1, num_samples))
    assert features.shape == (2, 6, -(-num_samples // 15))
    assert SeanetDecoder(sizes(**changes))(features).shape == (2, 1, 15 * features.shape[2])


def test_what_encodec_has_is_encodec() -> None:
    torch.manual_seed(0)
    mine = SeanetEncoder(sizes())
    theirs = EncodecEncoder(sizes().encodec)
    theirs.load_state_dict(mine.state_dict())
    waveforms = torch.randn(2, 1, 77)
    assert torch.equal(mine(waveforms), theirs(waveforms))


@torch.no_grad()
def test_a_causal_encoder_does_not_look_ahead_and_others_do() -> None:
    waveforms = torch.randn(1, 1, 150)
    changed = waveforms.clone()
    changed[..., 120:] = 0  # behind frame 7, and behind what is reflected at the start
    for is_causal in (True, False):
        encoder = SeanetEncoder(sizes(is_causal=is_causal))
        same = torch.isclose(encoder(waveforms), encoder(changed), atol=1e-6)[0].all(dim=0)
        assert bool(same[:8].all()) is is_causal
        assert not bool(same[8:].any())


@torch.no_grad()
def test_the_lstm_in_both_directions_sees_what_comes() -> None:
    encoder = SeanetEncoder(sizes(is_causal=True, is_bidirectional=True))
    waveforms = torch.randn(1, 1, 150)
    changed = waveforms.clone()
    changed[..., 140:] = 0
    assert not torch.isclose(encoder(waveforms), encoder(changed), atol=1e-7)[0, :, 0].all()


def test_released_names_are_of_every_weight_once() -> None:
    for module in (SeanetEncoder(sizes()), SeanetDecoder(sizes(activation="Snake", num_residual_layers=2))):
        names = module.released_names()
        assert names.keys() == module.state_dict().keys()
        assert len(set(names.values())) == len(names)
        assert all(name.startswith("model.") for name in names.values())


@pytest.mark.parametrize("wrong", [{"activation": "ReLU"}, {"strides": ()}])
def test_sizes_that_make_no_network_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sizes(**wrong)


@pytest.mark.parametrize("hop_length", [8, 12, 16])
def test_the_centred_inverse_is_that_of_torch(hop_length: int) -> None:
    head = InverseSTFTHead(4, 32, hop_length, padding="center")
    waveform = torch.randn(2, hop_length * 9)
    spectrum = torch.stft(waveform, 32, hop_length, window=head.window(), return_complex=True).transpose(1, 2)
    expected = torch.istft(spectrum.transpose(1, 2), 32, hop_length, window=head.window())
    torch.testing.assert_close(head.synthesize(spectrum), expected, atol=1e-5, rtol=1e-4)


def test_same_padding_gives_a_hop_for_each_frame_and_inverts_what_lies_inside() -> None:
    head = InverseSTFTHead(4, 32, 8, padding="same")
    padded = torch.nn.functional.pad(torch.randn(1, 80), (12, 12))
    spectrum = torch.fft.rfft(padded.unfold(1, 32, 8) * head.window())
    assert spectrum.shape[1] == 10
    torch.testing.assert_close(head.synthesize(spectrum), padded[:, 12:-12], atol=1e-5, rtol=1e-4)


def test_one_frame_makes_one_hop_and_wild_magnitudes_stay_numbers() -> None:
    head = InverseSTFTHead(4, 32, 8)
    torch.nn.init.constant_(head.out.bias, 1000.0)
    waveform = head(torch.zeros(3, 1, 4))
    assert waveform.shape == (3, 8)
    assert bool(waveform.isfinite().all())


@pytest.mark.parametrize("wrong", [{"padding": "none"}, {"n_fft": 33}, {"hop_length": 9}, {"hop_length": 20}])
def test_transforms_that_do_not_overlap_evenly_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"padding|n_fft"):
        InverseSTFTHead(4, **{"n_fft": 32, "hop_length": 8, **wrong})


def test_a_fresh_adaptive_norm_is_a_plain_one_and_conditions_differ() -> None:
    norm = AdaptiveLayerNorm(3, 8)
    features = torch.randn(2, 5, 8)
    plain = torch.nn.functional.layer_norm(features, (8,), eps=1e-6)
    torch.testing.assert_close(norm(features, torch.tensor([2])), plain)
    torch.nn.init.normal_(norm.shift.weight)
    each = norm(features, torch.tensor([0, 1]))
    torch.testing.assert_close(each[1], norm(features[1:], torch.tensor([1]))[0])
    assert not torch.allclose(each[0], norm(features[:1], torch.tensor([1]))[0])


def test_attention_is_the_definition() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(32)
    features = torch.randn(2, 32, 7)
    q, k, v = (layer(block.norm(features)) for layer in (block.q, block.k, block.v))
    weights = (torch.einsum("bct,bcs->bts", q, k) / 32**0.5).softmax(dim=-1)
    expected = features + block.proj_out(torch.einsum("bts,bcs->bct", weights, v))
    torch.testing.assert_close(block(features), expected, atol=1e-5, rtol=1e-4)


def test_the_body_keeps_the_frames_and_gradients_reach_all_of_it() -> None:
    backbone = VocosBackbone(6, 32, 16, 2, num_conditions=2, pos_net=position_net(32))
    features = torch.randn(2, 6, 9)
    hidden = backbone(features, torch.tensor([1]))
    assert hidden.shape == (2, 9, 32)
    hidden.square().sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in backbone.parameters())
    with pytest.raises(ValueError, match="do not make 32 groups"):
        position_net(48)
