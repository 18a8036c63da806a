"""StableToken alone: long clips, streams, training, its configuration, full checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.zoo.stabletoken.configuration import StableTokenConfig
from audiollm.tokenizer.zoo.stabletoken.model import StableToken
from tests.tokenizer.zoo.test_whisper_type import make_stabletoken

Noise = Callable[..., Tensor]


def test_a_long_clip_is_cut_into_pieces_of_thirty_seconds_and_streams_so(noise: Noise) -> None:
    model, waveform = make_stabletoken().eval(), noise(70 * 16000 + 77)
    whole = model.encode(waveform, 16000)[0][0]
    assert len(whole) == model.num_frames(len(waveform), 16000) == 2 * 750 + 251
    assert torch.equal(model.encode(waveform[: 30 * 16000], 16000)[0][0], whole[:750])
    assert model.can_encode_stream
    assert torch.equal(torch.cat(list(model.encode_stream(waveform.split(50_000), 16000))), whole)


def test_a_training_step_moves_encoder_and_voters_and_remembers_codes() -> None:
    torch.manual_seed(0)
    model = make_stabletoken().train()
    clean = torch.randn(2, 80, 64)
    mask = torch.ones(2, 64)
    mask[1, 40:] = 0
    before = model.fingerprint()
    output = model(clean, mask, clean + 0.1 * torch.randn_like(clean))
    assert output.frame_mask.tolist() == [[True] * 16, [True] * 10 + [False] * 6]
    output.quantizer_loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.startswith(("encoder.conv", "encoder.layers", "codebook.project_in")):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0 or name.endswith("k_proj.bias"), name
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model.codebook.recent_codes[-26:].tolist() == output.codes[output.frame_mask].tolist()
    model.eval()
    assert model.train().fingerprint() != before
    assert model.eval()(clean).quantizer_loss is None


def test_a_start_from_whisper_hears_as_whisper_does(whisper_folder: Path, noise: Noise) -> None:
    settings = {"quantize_position": 2, "codebook_size": 32}
    model = StableToken.from_whisper(whisper_folder, **settings)
    other = UniAudioTokenizer.from_whisper(whisper_folder, **settings, pooling_position=2, use_sae=False)
    found, expected = (one.encode(noise(20_000), 16000, return_features=True) for one in (model, other))
    assert torch.equal(found.features[0], expected.features[0])
    assert model.codebook_size == 32
    torch.manual_seed(9)
    assert StableToken.from_whisper(whisper_folder, **settings).fingerprint() == model.fingerprint()
    assert StableToken.from_whisper(whisper_folder, **settings, seed=1).fingerprint() != model.fingerprint()


def test_noisy_features_are_for_training() -> None:
    model = make_stabletoken().eval()
    with pytest.raises(ValueError, match="for training"):
        model(torch.zeros(1, 80, 8), noisy_features=torch.zeros(1, 80, 8))


def test_the_final_norm_counts_where_the_configuration_says_so() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 80, 32)
    plain = make_stabletoken().eval()
    normed = make_stabletoken(layernorm_after_quantize=True).eval()
    normed.load_state_dict(plain.state_dict())
    assert normed.fingerprint() == plain.fingerprint()  # it decides no code
    with torch.no_grad():
        expected = normed.encoder.layer_norm(plain(features).last_hidden_state)
        torch.testing.assert_close(normed(features).last_hidden_state, expected)


def test_a_full_checkpoint_gives_the_same_codes(stabletoken_folder: Path, tmp_path: Path, noise: Noise) -> None:
    """Prefixed as training writes it, with a layer behind the quantizer and a text decoder."""
    tensors = load_file(stabletoken_folder / "model.safetensors")
    config = json.loads((stabletoken_folder / "config.json").read_text(encoding="utf-8"))
    last, count = config["quantize_position"] - 1, config["quantize_position"] + 1
    full = {f"model.encoder.{name}": one for name, one in tensors.items()}
    for name, one in tensors.items():
        if name.startswith(f"layers.{last}."):
            full[f"model.encoder.layers.{last + 1}.{name.removeprefix(f'layers.{last}.')}"] = one.clone()
    full["model.decoder.embed_tokens.weight"] = torch.zeros(2, 3)
    save_file(full, tmp_path / "model.safetensors")
    values = {**config, "encoder_layers": count, "num_hidden_layers": count, "quantize_encoder_only": False}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    shutil.copy(stabletoken_folder / "preprocessor_config.json", tmp_path)
    model, released = (AudioTokenizer.from_pretrained(one) for one in (tmp_path, stabletoken_folder))
    assert model.fingerprint() == released.fingerprint()
    assert torch.equal(model.encode(noise(30_000), 16000).codes, released.encode(noise(30_000), 16000).codes)


def test_other_features_are_refused(tmp_path: Path) -> None:
    make_stabletoken().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hop_length": 320}))
    with pytest.raises(ValueError, match="hop_length=320"):
        AudioTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantize_vocab_size": 100}, "quantize_vocab_size.*power of two"),
        ({"num_clean_input": 6}, "num_clean_input=6"),
        ({"quantize_ema_decay": 0.9}, "quantize_ema_decay to null"),
        ({"pooling_position": 3}, "pooling_position=3"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(values: dict[str, object], message: str, tmp_path: Path) -> None:
    make_stabletoken().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ValueError, match=message):
        AudioTokenizer.from_pretrained(tmp_path)


def test_defaults_are_the_released_sizes() -> None:
    config = StableTokenConfig()
    assert (config.quantize_vocab_size, config.num_voters, config.frame_rate) == (8192, 5, 25.0)
    assert (config.pooling_position, config.num_code_positions) == (16, 1500)
