"""CosyVoice2's tokenizer alone: windows of long clips, the floor of their features, and the released ONNX file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.layers.rotary import rotary_angles
from audiollm.tokenizer.zoo.cosyvoice2 import graph
from audiollm.tokenizer.zoo.cosyvoice2.encoder import HEAD_SIZE, num_tokens
from audiollm.tokenizer.zoo.cosyvoice2.graph import read_onnx, weights_of_graph
from audiollm.tokenizer.zoo.cosyvoice2.model import CosyVoice2Tokenizer
from audiollm.tokenizer.zoo.cosyvoice2.windows import WINDOW_FRAMES, merge, windows
from tests.tokenizer.zoo.test_whisper_type import make_cosyvoice2

Noise = Callable[..., Tensor]


@pytest.fixture
def model() -> CosyVoice2Tokenizer:
    torch.manual_seed(5)
    return make_cosyvoice2().eval()


@given(st.integers(0, 30_000))
def test_windows_hold_every_token_of_a_clip_once(num_frames: int) -> None:
    parts = windows(num_frames)
    assert all(0 < last - first <= WINDOW_FRAMES for first, last in parts)
    # A token's number in the clip is that of its first frame, a quarter of it.
    numbers = [first // 4 + torch.arange(num_tokens(last - first)) for first, last in parts]
    assert torch.equal(merge(numbers), torch.arange(num_tokens(num_frames)))


def test_a_long_clip_is_heard_in_windows_with_the_floor_of_the_whole(model: CosyVoice2Tokenizer, noise: Noise) -> None:
    waveform = noise(61 * 16000 + 333)
    waveform[: 31 * 16000] *= 1e-5  # the first window is below the floor that the rest sets
    features = model.features(waveform)
    assert features.shape == (80, len(waveform) // 160)
    torch.testing.assert_close(features, model.log_mel(waveform[None])[0], atol=1e-4, rtol=0)
    with torch.no_grad():
        parts = [model(features[None, :, first:last])[0][0] for first, last in windows(features.shape[1])]
    found = model.encode(waveform, 16000)[0][0]
    assert len(found) == len(merge(parts)) == model.num_frames(len(waveform), 16000)
    assert (found == merge(parts)).float().mean() > 0.99


def test_a_stream_is_refused_as_the_whole_decides_the_features(model: CosyVoice2Tokenizer, noise: Noise) -> None:
    assert not model.can_encode_stream
    with pytest.raises(ValueError, match=r"cannot encode a stream; encode\(\) the whole"):
        model.encode_stream([noise(16_000)], 16_000)


def test_features_are_computed_window_by_window(model: CosyVoice2Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the memory of an hour is that of its samples."""
    widest = []
    logarithms = model.log_mel.logarithms

    def watch(extended: Tensor) -> Tensor:
        widest.append(extended.shape[1])
        return logarithms(extended)

    monkeypatch.setattr(model.log_mel, "logarithms", watch)
    model.encode(torch.zeros(100 * 16000), 16000)
    assert max(widest) <= WINDOW_FRAMES * 160 + 400


def test_what_lies_behind_a_row_has_no_influence_on_it(model: CosyVoice2Tokenizer) -> None:
    features = torch.randn(2, 80, 90)
    lengths = torch.tensor([90, 41])
    with torch.no_grad():
        one = model.encoder(features, lengths)[1, : num_tokens(41)]
        features[1, :, 41:] = 1000
        other = model.encoder(features, lengths)[1, : num_tokens(41)]
        alone = model.encoder(features[1:, :, :41])[0]
    assert torch.equal(one, other)
    torch.testing.assert_close(one, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_blocks": 3}, r"missing: encoder\.blocks\.2\.attn"),  # the file holds two, whole ones
        ({"size": 100}, r"config\.json: size=100: use a multiple of 64"),
        ({"num_blocks": 10**9}, r"config\.json: num_blocks=1000000000"),
        ({"wings": 2}, r"config\.json: .*wings"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    model: CosyVoice2Tokenizer, values: dict[str, int], message: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ValueError, match=message):
        AudioTokenizer.from_pretrained(tmp_path)


def test_the_released_weights_alone_say_their_sizes(model: CosyVoice2Tokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    assert AudioTokenizer.from_pretrained(tmp_path).fingerprint() == model.fingerprint()


# ------------------------------------------------------------------------- ONNX


class Exported(nn.Module):
    """The modules under the names that the released graph was exported with."""

    def __init__(self, model: CosyVoice2Tokenizer) -> None:
        super().__init__()
        self.conv1, self.conv2 = model.encoder.conv1, model.encoder.conv2
        self.blocks = model.encoder.blocks
        self.quantizer = nn.Module()
        self.quantizer.project_in = model.codebook.project_down

    def forward(self, features_BMF: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.conv1(features_BMF))
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        angles = rotary_angles(hidden.shape[1], HEAD_SIZE, hidden.device)
        for block in self.blocks:
            hidden = block(hidden, None, angles)
        projected: Tensor = self.quantizer.project_in(hidden)
        return projected


def nodes_of(model: CosyVoice2Tokenizer) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Nodes and stored tensors as in the released file: matrices turned round and numbered, convolutions too."""
    weights = {name: one.detach().numpy() for name, one in model.state_dict().items()}

    def node(name: str, *inputs: str, group: int = 1) -> Any:
        attributes = [SimpleNamespace(name="group", i=group)]
        return SimpleNamespace(
            name=name, op_type=name.rpartition("/")[2].split("_")[0], input=inputs, attribute=attributes
        )

    number = 2216
    for module in ("conv1", "conv2"):
        names = [f"onnx::Conv_{number}", f"onnx::Conv_{number + 1}"]
        number += 2
        yield (
            node(f"/{module}/Conv", "x", *names),
            {
                names[0]: weights[f"encoder.{module}.weight"],
                names[1]: weights[f"encoder.{module}.bias"],
            },
        )
    for block in range(model.sizes["num_blocks"]):
        path, key = f"/blocks.{block}", f"encoder.blocks.{block}"
        for norm in ("attn_ln", "mlp_ln"):
            names = [f"onnx::LayerNormalization_{number}", f"onnx::LayerNormalization_{number + 1}"]
            number += 2
            yield (
                node(f"{path}/{norm}/LayerNormalization", "x", *names),
                {
                    names[0]: weights[f"{key}.{norm}.weight"],
                    names[1]: weights[f"{key}.{norm}.bias"],
                },
            )
        for scope, own in (
            ("attn/query", "attn.query"),
            ("attn/key", "attn.key"),
            ("attn/value", "attn.value"),
            ("attn/out", "attn.out"),
            ("mlp/mlp.0", "mlp.0"),
            ("mlp/mlp.2", "mlp.2"),
        ):
            number += 1
            name = f"onnx::MatMul_{number}"
            yield node(f"{path}/{scope}/MatMul", "x", name), {name: weights[f"{key}.{own}.weight"].T}
            if own != "attn.key":
                bias = f"blocks.{block}.{own}.bias"
                yield node(f"{path}/{scope}/Add", bias, "y"), {bias: weights[f"encoder.{bias}"]}
        kept = f"blocks.{block}.attn.fsmn_block.weight"
        yield node(f"{path}/attn/fsmn_block/Conv", "v", kept, group=64), {kept: weights[f"encoder.{kept}"]}
    name = "onnx::MatMul_2536"
    yield node("/quantizer/project_in/MatMul", "x", name), {name: weights["quantizer._codebook.project_down.weight"].T}
    yield (
        node("/quantizer/project_in/Add", "quantizer.project_in.bias", "y"),
        {"quantizer.project_in.bias": weights["quantizer._codebook.project_down.bias"]},
    )


def test_numbered_matrices_are_found_by_the_node_that_uses_them(model: CosyVoice2Tokenizer) -> None:
    nodes = list(nodes_of(model))
    stored = {name: one for _, tensors in nodes for name, one in tensors.items()}
    found = weights_of_graph([node for node, _ in nodes], stored)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], one) for name, one in model.state_dict().items())


def test_convolutions_in_front_are_told_by_their_order_where_nodes_have_no_names(model: CosyVoice2Tokenizer) -> None:
    nodes = list(nodes_of(model))
    for number, (node, _) in enumerate(nodes[:2]):
        node.name = f"Conv_{number}"
    found = weights_of_graph(
        [node for node, _ in nodes], {name: one for _, some in nodes for name, one in some.items()}
    )
    assert torch.equal(found["encoder.conv2.weight"], model.encoder.conv2.weight)
    assert found.keys() == model.state_dict().keys()


def test_without_the_package_onnx_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speech_tokenizer_v2.onnx").write_bytes(b"")
    monkeypatch.setattr(graph.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'audiollm\[onnx\]'"):
        AudioTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("opset", [14, 17])  # without and with a node for norms
@pytest.mark.filterwarnings("ignore")  # torch's about this exporter, with which the released file was made
def test_an_exported_file_gives_the_same_codes(
    model: CosyVoice2Tokenizer, opset: int, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr("audiollm.tokenizer.linear.float32_kernel", lambda: "mkl")
    path = tmp_path / "speech_tokenizer_v2.onnx"
    torch.onnx.export(Exported(model), (torch.randn(1, 80, 60),), path, dynamo=False, opset_version=opset)
    assert read_onnx(path).keys() == model.state_dict().keys()
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert again.kind == "cosyvoice2"
    assert again.fingerprint() == model.fingerprint()
    assert torch.equal(again.encode(noise(30_000), 16000).codes, model.encode(noise(30_000), 16000).codes)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"speech_tokenizer_v2\.onnx is (cut off or damaged|no CosyVoice2)"):
        AudioTokenizer.from_pretrained(tmp_path)


def test_a_graph_of_something_else_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), tmp_path / "speech_tokenizer_v2.onnx"
    )
    with pytest.raises(ValueError, match=r"lacks encoder\.conv1\.weight"):
        AudioTokenizer.from_pretrained(tmp_path)
