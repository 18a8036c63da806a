"""What StableToken and CosyVoice2's tokenizer have in common: any batch, long and short clips, files, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.decoder.configuration import FlowConfig, TokenEncoderConfig, WaveformDecoderConfig
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.zoo.cosyvoice2.model import CosyVoice2Tokenizer
from audiollm.tokenizer.zoo.decodable import DecodableTokenizer
from audiollm.tokenizer.zoo.stabletoken.configuration import StableTokenConfig
from audiollm.tokenizer.zoo.stabletoken.model import StableToken

Noise = Callable[..., Tensor]
LENGTHS = [1, 159, 319, 640, 3000, 16000, 16001, 20480, 50000, 90001]


def make_stabletoken(**overrides: object) -> StableToken:
    values = {
        "d_model": 16,
        "encoder_layers": 3,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "num_mel_bins": 80,
        "quantize_position": 2,
        "pooling_position": 2,
        "quantize_vocab_size": 64,
    }
    return StableToken(StableTokenConfig(**values | overrides))


def make_cosyvoice2() -> CosyVoice2Tokenizer:
    return CosyVoice2Tokenizer(num_mel_bins=80, size=64, num_blocks=2, num_dims=4)


MAKERS: dict[str, Callable[[], DecodableTokenizer]] = {"stabletoken": make_stabletoken, "cosyvoice2": make_cosyvoice2}


@pytest.fixture(params=MAKERS)
def model(request: pytest.FixtureRequest) -> DecodableTokenizer:
    """A tiny one whose codes vary with the sound."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = MAKERS[request.param]()
        for module in made.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
    return made.eval()


def sure(one: Tensor, other: Tensor) -> bool:
    """Equal but for frames that rounding decides: in a batch, products are summed in another order."""
    return one.shape == other.shape and bool((one == other).float().mean() > 0.99)


# ------------------------------------------------------------------------ codes


def test_any_batch_gives_what_each_clip_gives_alone(
    model: DecodableTokenizer, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for batches as wide as a GPU's, where padding and masks come in."""
    clips = [noise(length, seed=length) for length in LENGTHS]
    alone = [model.encode(clip, 16000, return_features=True) for clip in clips]
    assert len(set(alone[-1].tolist()[0])) > 5
    place = "audiollm.tokenizer.encoder.encoding" if model.kind == "stabletoken" else type(model).__module__
    for tokens_at_once, max_padding in ((400, 0.1), (5000, 100.0)):
        monkeypatch.setattr(f"{place}.CPU_BATCH_TOKENS", tokens_at_once)
        monkeypatch.setattr(f"{place}.MAX_PADDING", max_padding)
        together = model.encode(clips, 16000, return_features=True)
        for index, expected in enumerate(alone):
            assert sure(together[index], expected[0]), LENGTHS[index]
            torch.testing.assert_close(together.features[index], expected.features[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
def test_frames_are_counted_without_encoding(model: DecodableTokenizer, sample_rate: int) -> None:
    for length in (0, *LENGTHS, 31 * sample_rate + 7):
        assert int(model.encode(torch.zeros(length), sample_rate).lengths[0]) == model.num_frames(length, sample_rate)


def test_every_clip_has_a_code_and_nothing_has_none(model: DecodableTokenizer, noise: Noise) -> None:
    codes = model.encode([torch.zeros(0), noise(1), noise(100), torch.zeros(0)], 16000, return_features=True)
    assert codes.lengths.tolist() == [0, 1, 1, 0]
    assert [len(one) for one in codes.features] == [0, 1, 1, 0]
    assert model.encode([], 16000).codes.shape == (0, 1, 0)


def test_training_mode_changes_no_code(model: DecodableTokenizer, noise: Noise) -> None:
    expected = model.encode(noise(30_000), 16000).codes
    model.train()
    assert torch.equal(model.encode(noise(30_000), 16000).codes, expected)
    assert model.training


def test_bfloat16_runs_and_gives_most_of_the_codes(model: DecodableTokenizer, noise: Noise, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    rough = AudioTokenizer.from_pretrained(tmp_path, dtype="bfloat16")
    assert rough.dtype == torch.bfloat16
    assert rough.fingerprint() == model.fingerprint()
    found, expected = (one.encode(noise(60_000), 16000)[0] for one in (rough, model))
    assert (found == expected).float().mean() > 0.3


def test_bad_sound_is_refused_by_name(model: DecodableTokenizer, noise: Noise) -> None:
    with pytest.raises(ValueError, match="clip 1 holds NaN"):
        model.encode([noise(500), torch.full((500,), torch.nan)], 16000)
    with pytest.raises(ValueError, match=r"clip 0 has shape \[2, 500\].*channels"):
        model.encode([torch.zeros(2, 500)], 16000)
    with pytest.raises(ValueError, match="float in"):
        model.encode(torch.zeros(500, dtype=torch.int16), 16000)
    with pytest.raises(ValueError, match="batch_size=0"):
        model.encode(noise(500), 16000, batch_size=0)


# ------------------------------------------------------------------------ files


def test_saving_and_loading_keep_codes_and_fingerprint(model: DecodableTokenizer, noise: Noise, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = AudioTokenizer.from_pretrained(tmp_path, fingerprint=model.fingerprint())
    assert type(again) is type(model)
    assert again.fingerprint() == model.fingerprint()
    assert torch.equal(again.encode(noise(40_000), 16000).codes, model.encode(noise(40_000), 16000).codes)
    assert (again.num_codebooks, again.codebook_size, again.frame_rate) == (1, model.codebook_size, 25.0)
    assert (again.sample_rate, again.max_segment_seconds, again.is_causal) == (16000, 30.0, False)
    with pytest.raises(ValueError, match="another audio tokenizer"):
        AudioTokenizer.from_pretrained(tmp_path, fingerprint="0" * 64)


def test_half_a_checkpoint_is_listed(model: DecodableTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    dropped = sorted(name for name in tensors if "fc1" in name or "mlp.0" in name)
    assert len(dropped) > 2
    save_file({name: one for name, one in tensors.items() if name not in dropped}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing: ") as caught:
        AudioTokenizer.from_pretrained(tmp_path)
    assert all(name in str(caught.value) for name in dropped)


def test_weights_without_number_are_refused(model: DecodableTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (name, *_) = (one for one in tensors if one.endswith("conv2.bias"))
    tensors[name][0] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in .*conv2\.bias"):
        AudioTokenizer.from_pretrained(tmp_path)


def test_a_missing_file_is_named(model: DecodableTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        AudioTokenizer.from_pretrained(tmp_path)


# ---------------------------------------------------------------------- decoder


def make_decoder(model: DecodableTokenizer, frame_rate: float = 25.0) -> WaveformDecoder:
    encoder = TokenEncoderConfig(size=16, num_heads=2, feed_forward_size=16, num_blocks=1)
    flow = FlowConfig(codebook_size=model.codebook_size, embedding_size=16, encoder=encoder, frame_rate=frame_rate)
    return WaveformDecoder(WaveformDecoderConfig(flow=flow))


def test_it_listens_only_and_says_so(model: DecodableTokenizer, noise: Noise) -> None:
    assert not model.can_decode
    assert not model.can_decode_stream
    with pytest.raises(ValueError, match=r"attach_decoder\(folder\)"):
        model.decode(model.encode(noise(5000), 16000))
    with pytest.raises(ValueError, match=r"attach_decoder\(folder\)"):
        model.decode_stream([torch.zeros(3, dtype=torch.int64)])


def test_a_decoder_of_its_codes_lies_in_or_beside_its_folder(model: DecodableTokenizer, tmp_path: Path) -> None:
    release = tmp_path / "release"
    model.save_pretrained(release / "tokenizer")
    make_decoder(model).save_pretrained(release / "decoder")
    for place in (release, release / "tokenizer"):
        again = AudioTokenizer.from_pretrained(place)
        assert again.can_decode
        assert again.output_sample_rate == 22050
    assert again.fingerprint() == model.fingerprint()
    again.save_pretrained(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "decoder" / "config.json").read_text())["model_type"] == "waveform_decoder"
    assert AudioTokenizer.from_pretrained(tmp_path / "copy").can_decode
    assert not AudioTokenizer.from_pretrained(tmp_path / "copy", decoder=False).can_decode


def test_a_decoder_of_other_codes_is_refused(model: DecodableTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    make_decoder(model, frame_rate=12.5).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ValueError, match=r"12\.5 Hz.*25\.0 Hz.*decoder=False"):
        AudioTokenizer.from_pretrained(tmp_path)
    assert not AudioTokenizer.from_pretrained(tmp_path, decoder=False).can_decode
