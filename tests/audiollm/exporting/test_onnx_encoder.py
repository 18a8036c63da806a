"""The audio tokenizer as ONNX: the same codes, for every kind of encoder, and all that a program must know."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import audiollm.exporting.onnx_encoder
from audiollm import UniAudioTokenizer
from audiollm.cli import main
from audiollm.exporting import export_onnx
from audiollm.exporting.onnx_encoder import CodesOfFeatures, metadata_of
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig

ROOT = Path(__file__).resolve().parents[3]
PARITY = ROOT / "tests" / "fixtures" / "parity"
EXAMPLE = ROOT / "examples" / "tokenize_with_onnx.py"
needs_onnx = pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs pip install 'audiollm[onnx]'",
)
LENGTHS = (1, 100, 639, 640, 641, 6401, 16000, 30_000)  # samples
VARIANTS: dict[str, dict[str, Any]] = {
    "pooled at the quantizer": {},
    "no pooling": {"pooling_kernel_size": None},
    "maximum of three in front": {"pooling_kernel_size": 3, "pooling_type": "max", "pooling_position": 0},
    "causal": {"encoder_causal_attention": True, "encoder_causal_convolution": True},
    "blocks": {"quantize_causal_block_size": 8},
    "SAE": {
        "encoder_residual_source_position": 1, "encoder_residual_target_position": 2, "quantize_position": 2,
        "use_residual_adapter": True, "use_residual_gate": True,
    },
    "metric": {"quantize_metric_size": 5},
}  # fmt: skip


def tokenizer_of(codec: UniAudioTokenizer, **changes: Any) -> UniAudioTokenizer:
    """A tiny audio tokenizer like ``codec``, of another kind."""
    config = UniAudioTokenizerConfig.from_dict({**codec.config.to_dict(), **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = UniAudioTokenizer(config).eval()
        if made.codebook.metric is not None:
            made.codebook.metric.normal_()
    return made


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_module_of_ordinary_operators_gives_the_codes_of_encode(codec: UniAudioTokenizer, variant: str) -> None:
    tokenizer = tokenizer_of(codec, **VARIANTS[variant])
    module = CodesOfFeatures(tokenizer).eval()
    stride = tokenizer.config.token_stride
    for length in LENGTHS:
        waveform = torch.randn(length, generator=torch.Generator().manual_seed(length))
        padded = torch.zeros(1, -(-length // stride) * stride)
        padded[0, :length] = waveform
        features = tokenizer.log_mel(padded)
        mask = (torch.arange(features.shape[-1]) * 160 < length).long()[None]
        with torch.no_grad():
            assert module(features, mask)[0].tolist() == tokenizer.encode([waveform], 16000).tolist()[0]


def test_the_metadata_say_what_a_program_must_know(codec: UniAudioTokenizer) -> None:
    facts = metadata_of(codec)
    assert facts["fingerprint"] == codec.fingerprint()
    assert json.loads(facts["frame_rate"]) == 25.0
    assert (json.loads(facts["codebook_size"]), json.loads(facts["num_mel_bins"])) == (64, 16)
    assert json.loads(facts["frames_per_token"]) * json.loads(facts["hop_length"]) == codec.config.token_stride


def test_weights_that_are_missing_are_named(
    codec: UniAudioTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiollm.exporting.onnx_encoder, "_PACKAGES", ())
    codec.save_pretrained(tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "model.safetensors"
    tensors = {name: one for name, one in load_file(path).items() if "encoder" not in name}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(SystemExit):
        main(["export", str(path.parent), str(tmp_path / "out"), "--format", "onnx"])
    told = capsys.readouterr().err
    assert str(path.parent) in told
    assert "missing: encoder.conv1.bias" in told
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_was_not_trained_to_the_end_is_refused(
    codec: UniAudioTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiollm.exporting.onnx_encoder, "_PACKAGES", ())
    tokenizer_of(codec, quantizer_bypassed=True).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="trained without its quantizer"):
        export_onnx(tmp_path / "tokenizer", tmp_path / "out")


def test_without_the_libraries_it_is_said_how_to_get_them(
    codec: UniAudioTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiollm.exporting.onnx_encoder, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs onnx, onnxscript, onnxruntime: run `pip install 'audiollm\[onnx\]'`"):
        export_onnx("mini", tmp_path / "out")


# --- the graph itself -------------------------------------------------------------------------------------------------


def example() -> Any:
    """The example's class, which knows nothing of this package."""
    return runpy.run_path(str(EXAMPLE))["OnnxTokenizer"]


@needs_onnx
@pytest.mark.parametrize("variant", VARIANTS)
def test_onnxruntime_gives_the_codes_of_encode(codec: UniAudioTokenizer, variant: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(codec, **VARIANTS[variant])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    facts = export_onnx(tmp_path / "tokenizer", tmp_path / "out")
    assert facts["tried"] == facts["equal"] > 0
    onnx_tokenizer = example()(tmp_path / "out")
    clips = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in LENGTHS]
    clips.append(torch.cat(clips).repeat(11)[: 16000 * 31 + 77])  # more than one segment
    for clip, codes in zip(clips, tokenizer.encode(clips, 16000).tolist(), strict=True):
        assert onnx_tokenizer.encode(clip.numpy()).tolist() == codes


@needs_onnx
def test_the_graph_takes_any_batch_and_names_no_file_of_this_machine(codec: UniAudioTokenizer, tmp_path: Path) -> None:
    import onnx

    codec.save_pretrained(tmp_path / "tokenizer")
    export_onnx(tmp_path / "tokenizer", tmp_path / "out")
    path = tmp_path / "out" / "audio_tokenizer.onnx"
    assert str(ROOT).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]  # ONNX's own operators alone
    assert {one.key: one.value for one in model.metadata_props} == metadata_of(
        UniAudioTokenizer.from_pretrained(tmp_path / "tokenizer", encoder_only=True)
    )
    sizes = [
        [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim] for value in model.graph.input
    ]
    assert sizes == [["batch", 16, "frames"], ["batch", "frames"]]


@needs_onnx
def test_a_graph_with_other_codes_is_not_kept(
    codec: UniAudioTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec.save_pretrained(tmp_path / "tokenizer")
    nearest = CodesOfFeatures.forward

    def farther(module: CodesOfFeatures, input_features: Tensor, attention_mask: Tensor) -> Tensor:
        return (nearest(module, input_features, attention_mask) + 1) % 64

    monkeypatch.setattr(CodesOfFeatures, "forward", farther)
    with pytest.raises(ValueError, match="the ONNX graph finds other codes"):
        export_onnx(tmp_path / "tokenizer", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_onnx
def test_the_example_tokenizes_recordings_without_torch(tmp_path: Path) -> None:
    main(["export", "mini", str(tmp_path / "out"), "--format", "onnx"])
    recording = ROOT / "data" / "corpora" / "sample" / "asterisk" / "en" / "vm-savefolder.opus"
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = {str(EXAMPLE)!r}; {code}"]
    done = subprocess.run([*command, str(tmp_path / "out"), str(recording)], capture_output=True, text=True, check=True)
    line = json.loads(done.stdout)
    assert len(line["codes"]) == 72
    assert line["audio_tokenizer"] == UniAudioTokenizer.from_pretrained("mini", decoder=False).fingerprint()
