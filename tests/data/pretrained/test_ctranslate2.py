"""A CTranslate2 Whisper file becomes exactly the transformers model it was made from."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from audiollm.data.pretrained.ctranslate2 import CTranslate2Error, read_model, whisper_config, whisper_state_dict

DTYPE_IDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def field(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def write_model(path: Path, variables: dict[str, np.ndarray], spec: str = "WhisperSpec", revision: int = 3) -> Path:
    """Writes the container format, slowly and plainly; the projection is an alias as in real files."""
    chunks = [struct.pack("<I", 6), field(spec), struct.pack("<II", revision, len(variables))]
    for name, array in variables.items():
        chunks += [field(name), struct.pack("<B", array.ndim), *(struct.pack("<I", size) for size in array.shape)]
        chunks += [struct.pack("<BI", DTYPE_IDS[array.dtype.name], array.nbytes), array.tobytes()]
    chunks += [struct.pack("<I", 1), field("decoder/projection/weight"), field("decoder/embeddings/weight")]
    path.write_bytes(b"".join(chunks))
    return path


@pytest.fixture
def whisper() -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=60, d_model=16, num_mel_bins=8, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=20, max_source_positions=12,
        max_target_positions=10, pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    for parameter in model.parameters():  # zero-initialised biases would hide a lost or swapped one
        torch.nn.init.normal_(parameter, std=0.3)
    return model.half().eval()


@pytest.fixture
def variables(whisper: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """The model's weights under CTranslate2's names, written out by hand."""
    weights = {name: tensor.numpy() for name, tensor in whisper.state_dict().items()}
    result = {
        "decoder/embeddings/weight": weights["model.decoder.embed_tokens.weight"],
        "encoder/num_heads": np.array(4, np.int16),
        "decoder/num_heads": np.array(2, np.int16),
        "decoder/activation": np.array(3, np.int8),
        "decoder/pre_norm": np.array(1, np.int8),
        "decoder/alignment_layer": np.array(-1, np.int16),
    }
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            result[f"encoder/{conv}/{kind}"] = weights[f"model.encoder.{conv}.{kind}"]

    def norm(source: str, target: str) -> None:
        result[f"{source}/gamma"], result[f"{source}/beta"] = weights[f"{target}.weight"], weights[f"{target}.bias"]

    def linear(source: str, *targets: str) -> None:
        zeros = np.zeros(16, np.float16)
        result[f"{source}/weight"] = np.concatenate([weights[f"{target}.weight"] for target in targets])
        result[f"{source}/bias"] = np.concatenate([weights.get(f"{target}.bias", zeros) for target in targets])

    for side, num_layers in (("encoder", 2), ("decoder", 1)):
        result[f"{side}/position_encodings/encodings"] = weights[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for index in range(num_layers):
            ours, theirs = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
            own = f"{ours}.self_attn"
            linear(f"{theirs}/self_attention/linear_0", f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
            linear(f"{theirs}/self_attention/linear_1", f"{own}.out_proj")
            norm(f"{theirs}/self_attention/layer_norm", f"{own}_layer_norm")
            if side == "decoder":
                cross = f"{ours}.encoder_attn"
                linear(f"{theirs}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{theirs}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{theirs}/attention/linear_2", f"{cross}.out_proj")
                norm(f"{theirs}/attention/layer_norm", f"{cross}_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
    return result


def test_weights_and_logits_survive_the_trip(tmp_path, whisper, variables):
    model = read_model(write_model(tmp_path / "model.bin", variables))
    config = WhisperConfig(**{**whisper_config(model), "pad_token_id": 1, "decoder_start_token_id": 2})
    rebuilt = WhisperForConditionalGeneration(config).half().eval()
    rebuilt.load_state_dict(whisper_state_dict(model), strict=True)
    for name, tensor in whisper.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[name], tensor), name
    features, token_ids = torch.randn(1, 8, 24), torch.tensor([[2, 5, 9]])
    expected = whisper.float()(input_features=features, decoder_input_ids=token_ids).logits
    torch.testing.assert_close(
        rebuilt.float()(input_features=features, decoder_input_ids=token_ids).logits, expected, rtol=0, atol=0
    )


def test_sizes_come_from_the_file(tmp_path, whisper, variables):
    config = whisper_config(read_model(write_model(tmp_path / "model.bin", variables)))
    for key in ("vocab_size", "d_model", "num_mel_bins", "encoder_layers", "decoder_layers", "encoder_attention_heads",
                "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_source_positions",
                "max_target_positions"):  # fmt: skip
        assert config[key] == getattr(whisper.config, key), key


def test_parts_in_order_equal_the_whole_file(tmp_path, variables):
    whole = write_model(tmp_path / "model.bin", variables)
    raw = whole.read_bytes()
    parts = [tmp_path / "model.bin.part1", tmp_path / "model.bin.part2"]
    parts[0].write_bytes(raw[:1001])
    parts[1].write_bytes(raw[1001:])
    joined, expected = read_model(parts).variables, read_model(whole).variables
    assert joined.keys() == expected.keys()
    assert all(torch.equal(joined[name], expected[name]) for name in expected)
    with pytest.raises(CTranslate2Error, match=r"parts are in the wrong order"):
        read_model(parts[::-1])
    with pytest.raises(CTranslate2Error, match=r"truncated or a part is missing"):
        read_model(parts[0])


def test_a_tail_is_refused(tmp_path, variables):
    path = write_model(tmp_path / "model.bin", variables)
    path.write_bytes(path.read_bytes() + b"xyz")
    with pytest.raises(CTranslate2Error, match="3 bytes after its end"):
        read_model(path)


@pytest.mark.parametrize("content", [b"", b"\x06", b"RIFF" + bytes(40), b"\x06\0\0\0\xff\xff"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CTranslate2Error, match=r"model\.bin"):
        read_model(path)


def refusal(tmp_path: Path, variables: dict[str, np.ndarray], **kwargs) -> str:
    with pytest.raises(CTranslate2Error) as caught:
        whisper_state_dict(read_model(write_model(tmp_path / "model.bin", variables, **kwargs)))
    return str(caught.value)


def test_whatever_whisper_would_compute_differently_is_refused(tmp_path, variables):
    assert "TransformerSpec revision 3" in refusal(tmp_path, variables, spec="TransformerSpec")
    assert "revision 9" in refusal(tmp_path, variables, revision=9)
    assert "decoder/activation is 0" in refusal(tmp_path, {**variables, "decoder/activation": np.array(0, np.int8)})
    scale = {"encoder/layer_0/ffn/linear_0/weight_scale": np.ones(24, np.float32)}
    assert "float16 or float32" in refusal(tmp_path, {**variables, **scale})
    extra = {"encoder/extra": np.ones(2, np.float32)}
    assert "no place in Whisper: encoder/extra" in refusal(tmp_path, {**variables, **extra})
    lost = {name: array for name, array in variables.items() if name != "encoder/layer_1/ffn/linear_1/bias"}
    assert "lacks encoder/layer_1/ffn/linear_1/bias" in refusal(tmp_path, lost)


def test_a_key_bias_is_refused_and_not_dropped(tmp_path, variables):
    bias = variables["encoder/layer_0/self_attention/linear_0/bias"].copy()
    bias[16] = 0.5
    message = refusal(tmp_path, {**variables, "encoder/layer_0/self_attention/linear_0/bias": bias})
    assert "encoder/layer_0/self_attention/linear_0/bias gives the keys a bias" in message
