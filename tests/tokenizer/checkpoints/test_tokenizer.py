"""Every checkpoint layout loads to the same codes, and what does not fit is refused with a list."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForAudioTokenization, WhisperConfig

from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig

Noise = Callable[..., Tensor]


def same(first: UniAudioTokenizer, second: UniAudioTokenizer, waveform: Tensor) -> bool:
    return first.encode(waveform, 16000).tolist() == second.encode(waveform, 16000).tolist()


@pytest.fixture
def released(tmp_path: Path, parity: Path) -> Path:
    """A released tokenizer with layers behind the quantizer, in a folder that a test may spoil."""
    folder = tmp_path / "release" / "tokenizer"
    shutil.copytree(parity / "encoder_a_sae_before_vq", folder)
    return folder


def test_save_and_load_give_the_same_weights(tokenizer: UniAudioTokenizer, tmp_path: Path, noise: Noise) -> None:
    tokenizer.codebook.num_updates.fill_(17)
    tokenizer.save_pretrained(tmp_path)
    for loaded in (
        UniAudioTokenizer.from_pretrained(tmp_path),
        AutoModelForAudioTokenization.from_pretrained(tmp_path),
        AutoModel.from_pretrained(tmp_path),
    ):
        assert isinstance(loaded, UniAudioTokenizer)
        assert not loaded.training
        varying = {"_name_or_path": "", "architectures": None}
        assert loaded.config.to_dict() | varying == tokenizer.config.to_dict() | varying
        for name, value in tokenizer.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name]), name
        trainable = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
        assert trainable == {name for name, parameter in tokenizer.named_parameters() if parameter.requires_grad}
        assert same(tokenizer, loaded, noise(30000))
    assert isinstance(AutoConfig.from_pretrained(tmp_path), UniAudioTokenizerConfig)


def test_export_reloads_to_the_same_codes(tokenizer: UniAudioTokenizer, tmp_path: Path, noise: Noise) -> None:
    tokenizer.export_released(tmp_path / "tokenizer")
    exported = UniAudioTokenizer.from_pretrained(tmp_path)
    assert len(exported.encoder.layers) == tokenizer.config.quantize_position
    assert exported.fingerprint() == tokenizer.fingerprint()
    assert same(tokenizer, exported, noise(30000))
    names = set(load_file(tmp_path / "tokenizer" / "model.safetensors"))
    assert {"conv1.weight", "residual_gate.2.bias", "codebook_used", "ema_count"} <= names
    assert not any(name.startswith(("layer_norm", "layers.3", "encoder.", "codebook.num")) for name in names)
    config = json.loads((tmp_path / "tokenizer" / "config.json").read_text())
    assert config["model_type"] == "whisper"
    assert config["quantize_encoder_only"] is True


def test_an_export_that_fails_leaves_the_folder_as_it_was(
    tokenizer: UniAudioTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError("disk full")

    tokenizer.export_released(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        tokenizer.codebook.weight.add_(1)
    monkeypatch.setattr("audiollm.tokenizer.checkpoints.tokenizer.write_released_config", fail)
    with pytest.raises(OSError, match="disk full"):
        tokenizer.export_released(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_export_of_a_released_checkpoint_keeps_every_tensor(released: Path, tmp_path: Path) -> None:
    UniAudioTokenizer.from_pretrained(released).export_released(tmp_path / "again")
    before, after = load_file(released / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    dropped = {name for name in before if name.startswith(("layer_norm.", "layers.4.", "layers.5."))}
    assert set(after) == set(before) - dropped
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]), name


def test_the_parent_of_a_released_tokenizer_will_do(released: Path, noise: Noise) -> None:
    direct, through_parent = (
        UniAudioTokenizer.from_pretrained(released),
        UniAudioTokenizer.from_pretrained(released.parent),
    )
    assert same(direct, through_parent, noise(20000))


def test_a_full_training_checkpoint_loads_like_its_export(released: Path, noise: Noise) -> None:
    direct = UniAudioTokenizer.from_pretrained(released)
    tensors = {f"model.encoder.{name}": tensor for name, tensor in load_file(released / "model.safetensors").items()}
    tensors["model.decoder.embed_tokens.weight"] = torch.zeros(3, 3)
    tensors["proj_out.weight"] = torch.zeros(3, 3)
    save_file(tensors, released / "model.safetensors")
    assert same(direct, UniAudioTokenizer.from_pretrained(released), noise(20000))
    assert same(direct, UniAudioTokenizer.from_pretrained(released, encoder_only=True), noise(20000))


@pytest.mark.parametrize("with_index", [True, False])
def test_shards(released: Path, with_index: bool, noise: Noise) -> None:
    direct = UniAudioTokenizer.from_pretrained(released)
    tensors = load_file(released / "model.safetensors")
    (released / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in shards.items():
        save_file({name: tensors[name] for name in own}, released / file)
    if with_index:
        weight_map = {name: file for file, own in shards.items() for name in own}
        (released / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(direct, UniAudioTokenizer.from_pretrained(released), noise(20000))
    if with_index:
        (released / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(ValueError, match=r"lacks weight files.*model-00002-of-00002"):
            UniAudioTokenizer.from_pretrained(released)


def test_encoder_only_reads_nothing_behind_the_quantizer(
    released: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    class Recorder:
        def __init__(self, *arguments: object, **options: object) -> None:
            self.file = safe_open(*arguments, **options)

        def __enter__(self) -> Recorder:
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *arguments: object) -> None:
            self.file.__exit__(*arguments)

        def keys(self) -> list[str]:
            return list(self.opened.keys())

        def get_tensor(self, name: str) -> Tensor:
            read.append(name)
            return self.opened.get_tensor(name)

    full = UniAudioTokenizer.from_pretrained(released)
    monkeypatch.setattr("audiollm.tokenizer.checkpoints.tokenizer.safe_open", Recorder)
    short = UniAudioTokenizer.from_pretrained(released, encoder_only=True)
    assert "layers.3.fc1.weight" in read
    assert not [name for name in read if name.startswith(("layer_norm.", "layers.4.", "layers.5."))]
    assert len(short.encoder.layers) == 4
    assert short.fingerprint() == full.fingerprint()
    assert same(full, short, noise(20000))


def test_training_state_may_be_absent(released: Path, noise: Noise) -> None:
    direct = UniAudioTokenizer.from_pretrained(released)
    tensors = load_file(released / "model.safetensors")
    for name in ("ema_count", "ema_weight", "codebook_used"):
        del tensors[name]
    save_file(tensors, released / "model.safetensors")
    (released / "preprocessor_config.json").unlink()
    bare = UniAudioTokenizer.from_pretrained(released)
    assert same(direct, bare, noise(20000))
    assert torch.equal(bare.codebook.ema_weight, bare.codebook.weight)
    assert torch.equal(bare.codebook.ema_count, torch.ones(256))
    bare.train()
    assert torch.isfinite(bare(torch.randn(1, 128, 40)).quantizer_loss)


def test_positions_that_whisper_never_trains_may_be_absent(
    tokenizer: UniAudioTokenizer, tmp_path: Path, noise: Noise
) -> None:
    tokenizer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    stored = tensors.pop("encoder.embed_positions.weight")
    for dtype in (torch.float32, torch.float16):
        halved = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        save_file(halved, tmp_path / "model.safetensors", metadata={"format": "pt"})
        loaded = UniAudioTokenizer.from_pretrained(tmp_path, dtype="auto")
        made_up = loaded.encoder.embed_positions.weight
        assert made_up.dtype == dtype
        assert not made_up.requires_grad
        torch.testing.assert_close(made_up.float(), stored, atol=1e-3, rtol=0)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert same(tokenizer, UniAudioTokenizer.from_pretrained(tmp_path), noise(30000))


def test_missing_unknown_and_misshapen_tensors_are_all_listed(released: Path) -> None:
    tensors = load_file(released / "model.safetensors")
    del tensors["layers.2.fc1.bias"], tensors["conv1.weight"]
    tensors["surprise.weight"] = torch.zeros(2)
    tensors["layers.9.fc1.bias"] = torch.zeros(2)
    tensors["conv2.bias"] = torch.zeros(3)
    save_file(tensors, released / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit") as caught:
        UniAudioTokenizer.from_pretrained(released)
    message = str(caught.value)
    for part in (
        "missing: encoder.conv1.weight, encoder.layers.2.fc1.bias;",
        "unknown: encoder.layers.9.fc1.bias, surprise.weight;",
        "encoder.conv2.bias [3] instead of [64]",
    ):
        assert part in message


def test_weights_that_are_no_numbers_are_refused_by_name(released: Path) -> None:
    tensors = load_file(released / "model.safetensors")
    tensors["ema_weight"][0] = float("nan")  # chance values of the published trainer; codes do not depend on them
    save_file(tensors, released / "model.safetensors")
    UniAudioTokenizer.from_pretrained(released)
    tensors["conv1.weight"][0, 0, 0] = float("nan")
    save_file(tensors, released / "model.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in .*conv1\.weight"):
        UniAudioTokenizer.from_pretrained(released)


def test_what_a_header_announces_is_refused_before_it_takes_memory(
    released: Path, announce: Callable[[Path, str, int], None]
) -> None:
    announce(released / "model.safetensors", "conv2.bias", 10**10)
    with pytest.raises(ValueError, match=r"encoder\.conv2\.bias \[10000000000\] instead of \[64\]"):
        UniAudioTokenizer.from_pretrained(released)


@pytest.mark.parametrize("name", ["model-other.safetensors", "within"])
def test_a_tensor_that_is_there_twice_is_refused(released: Path, name: str) -> None:
    path = released / "model.safetensors"
    if name == "within":
        tensors = load_file(path)
        save_file(tensors | {"model.encoder.conv1.weight": tensors["conv1.weight"].clone()}, path)
    else:
        shutil.copy(path, released / name)
    with pytest.raises(ValueError, match="twice"):
        UniAudioTokenizer.from_pretrained(released)


def test_positions_without_number_are_not_made_up(released: Path) -> None:
    path = released / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_source_positions": 10**9}))
    with pytest.raises(ValueError, match="max_source_positions=1000000000"):
        UniAudioTokenizer.from_pretrained(released)


def test_wrong_folders_are_refused(tmp_path: Path, released: Path) -> None:
    with pytest.raises(ValueError, match="neither a folder here nor a checkpoint on the Hub"):
        UniAudioTokenizer.from_pretrained(tmp_path / "nothing" / "here" / "at-all")
    with pytest.raises(ValueError, match=r"holds no tokenizer: expected config\.json"):
        UniAudioTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a file; pass the folder"):
        UniAudioTokenizer.from_pretrained(released / "config.json")
    (released / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        UniAudioTokenizer.from_pretrained(released)
    (released / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        UniAudioTokenizer.from_pretrained(released)
    (released / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        UniAudioTokenizer.from_pretrained(released)


def test_other_models_are_refused(tmp_path: Path) -> None:
    WhisperConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"plain Whisper model.*from_whisper"):
        UniAudioTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="describes a 'bert' model"):
        UniAudioTokenizer.from_pretrained(tmp_path)


def test_other_features_are_refused(released: Path) -> None:
    path = released / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hop_length": 320}))
    with pytest.raises(ValueError, match=r"hop_length=320, but this encoder works with hop_length=160"):
        UniAudioTokenizer.from_pretrained(released)


def test_misspelt_options_are_refused(released: Path) -> None:
    with pytest.raises(TypeError, match="encoder_onyl"):
        UniAudioTokenizer.from_pretrained(released, encoder_onyl=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", torch.float16])
def test_dtype_leaves_the_codebook_in_float32(released: Path, dtype: torch.dtype | str, noise: Noise) -> None:
    model = UniAudioTokenizer.from_pretrained(released, dtype=dtype)
    assert model.dtype == (torch.bfloat16 if dtype == "bfloat16" else dtype)
    assert model.codebook.weight.dtype == torch.float32
    assert model.codebook.recent_codes.dtype == torch.int64
    full = UniAudioTokenizer.from_pretrained(released)
    assert full.dtype == torch.float32
    waveform = noise(20 * 16000)
    assert (model.encode(waveform, 16000).codes != full.encode(waveform, 16000).codes).float().mean() < 0.1
    with pytest.raises(ValueError, match="dtype='int'"):
        UniAudioTokenizer.from_pretrained(released, dtype="int")


def test_fingerprint_follows_what_decides_the_codes(make_tokenizer: Callable[..., UniAudioTokenizer]) -> None:
    tokenizer = make_tokenizer()
    fingerprint = tokenizer.fingerprint()
    assert fingerprint == make_tokenizer().fingerprint()
    with torch.no_grad():
        tokenizer.code_positions.weight.add_(1)
        tokenizer.encoder.layers[3].fc1.weight.add_(1)
        tokenizer.codebook.ema_count.add_(1)
    assert tokenizer.fingerprint() == fingerprint
    with torch.no_grad():
        tokenizer.codebook.weight[0, 0] += 1e-3
    assert tokenizer.fingerprint() != fingerprint
    assert make_tokenizer(pooling_type="max").fingerprint() != fingerprint


def test_sae_behind_the_quantizer_is_said_to_be_inactive(parity: Path) -> None:
    assert UniAudioTokenizer.from_pretrained(parity / "encoder_a_sae_before_vq").sae_is_active
    assert not UniAudioTokenizer.from_pretrained(parity / "encoder_b_shipped_topology").sae_is_active
    assert not UniAudioTokenizer.from_pretrained(parity / "encoder_c_no_sae_max_pool").sae_is_active


@pytest.mark.parametrize(
    "text", ["[]", '{"model_type": "whisper", "quantize_vocab_size": 8, "quantize_position": "x"}']
)
def test_a_configuration_of_wrong_types_is_refused_by_name(released: Path, text: str) -> None:
    (released / "config.json").write_text(text)
    (released / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json holds a"):
        UniAudioTokenizer.from_pretrained(released)


def test_facts_come_from_the_configuration(parity: Path) -> None:
    model = UniAudioTokenizer.from_pretrained(parity / "encoder_a_sae_before_vq")
    assert (model.sample_rate, model.frame_rate, model.num_codebooks, model.codebook_size) == (16000, 25.0, 1, 256)
    assert model.max_segment_seconds == 30.0
    assert "European Union" in model.licence_note
    glm = UniAudioTokenizer.from_pretrained(parity / "encoder_e_glm_block_causal")
    assert glm.frame_rate == 12.5
    assert glm.max_segment_seconds == 5.12  # 258 positions, in whole tokens
