"""What holds of SQCodec, causal or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

SIZES: dict[str, Any] = {
    "sample_rate": 8000, "num_samples": 2, "downsample_factors": (2, 5), "downsample_kernel_sizes": (4, 10),
    "upsample_factors": (5, 2), "upsample_kernel_sizes": (10, 4), "latent_hidden_dim": 6, "init_channel": 4,
}  # fmt: skip
RATE = 8000
Noise = Callable[..., Tensor]


def make(**changes: Any) -> SQCodec:
    torch.manual_seed(0)
    model = SQCodec(SQCodecConfig(**{**SIZES, **changes})).eval()
    model.encoder[-1].parametrizations.weight.original0.data *= 5
    return model


@pytest.fixture(params=[True, False], ids=["causal", "not causal"])
def model(request: pytest.FixtureRequest) -> SQCodec:
    return make(causal=request.param)


def test_each_clip_gets_what_it_gets_alone(model: SQCodec, noise: Noise) -> None:
    clips = [noise(3000, 1), noise(81, 2), noise(3000, 3), noise(5), noise(0)]
    encoded = model.encode(clips, RATE, return_features=True)
    assert encoded.lengths.tolist() == [150, 5, 150, 1, 0] == [model.num_frames(len(clip), RATE) for clip in clips]
    assert len(encoded[0].unique()) > 4
    sounds = model.decode(encoded)
    for index, clip in enumerate(clips):
        alone = model.encode(clip, RATE)
        assert torch.equal(alone[0], encoded[index])
        torch.testing.assert_close(model.decode(alone)[0], sounds[index], atol=1e-5, rtol=1e-4)
        assert len(sounds[index]) == encoded[index].shape[1] * model.frame_samples


def test_a_causal_one_looks_at_no_sample_ahead(noise: Noise) -> None:
    clip = noise(2000)
    whole = make().encode(clip, RATE)[0]
    assert torch.equal(make().encode(clip[:1000], RATE)[0], whole[:, :50])
    assert make().is_causal
    assert not torch.equal(
        make(causal=False).encode(clip[:1000], RATE)[0], make(causal=False).encode(clip, RATE)[0][:, :50]
    )


def test_codes_say_all_that_is_decoded(model: SQCodec, noise: Noise) -> None:
    encoded = model.encode(noise(400), RATE, return_features=True)
    assert encoded.features is not None
    with torch.no_grad():
        sound = model.sound(encoded.features[0].T[None])
    decoded = model.decode(encoded)[0]
    assert torch.equal(sound[0, : len(decoded)], decoded)


def test_what_is_saved_is_opened_again(model: SQCodec, noise: Noise, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(noise(400), RATE).codes, model.encode(noise(400), RATE).codes)
    without = AudioTokenizer.from_pretrained(tmp_path, encoder_only=True)
    assert without.fingerprint() == model.fingerprint()
    assert not without.can_decode
    with pytest.raises(ValueError, match="cannot decode"):
        without.decode(torch.zeros(6, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_bands": 4}, "num_bands=4"),
        ({"upsample_factors": [2, 2]}, "do not undo"),
        ({"downsample_kernel_sizes": [4]}, "as many downsample_kernel_sizes"),
        ({"downsample_kernel_sizes": [1, 10]}, "below its factor"),
        ({"latent_hidden_dim": 0}, "latent_hidden_dim=0"),
        ({"causal": "yes"}, "causal='yes' must be true or false"),
        ({"latent_hidden_dim": 7}, "wrong shape"),
    ],
)
def test_settings_that_make_no_codec_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = make()
    names = model.released_names()
    tensors = {names[name]: one for name, one in model.weights().items()}
    torch.save({"codec_model": tensors}, tmp_path / "sqcodec.pth")
    values = {name: list(one) if isinstance(one, tuple) else one for name, one in model.settings().items()}
    text = yaml.safe_dump({"generator": {"config": {**values, **changes}}})
    (tmp_path / "sqcodec_config.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        AudioTokenizer.from_pretrained(tmp_path)


def test_a_missing_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "sqcodec.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no sqcodec_config\.yaml"):
        AudioTokenizer.from_pretrained(tmp_path)
