"""Folders of models that are not whole, not numbers, or want more than to be read: refused by name."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from audiollm.loading import load_causal_lm, load_text_tokenizer
from audiollm.mini import mini_folder
from audiollm.modeling import AudioLLM

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded model that may be damaged."""
    return Path(shutil.copytree(mini_folder(), tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def without(*parts: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if any(part in name for part in parts)]:
            del weights[name]

    return drop


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without(".mlp."), "mlp"),
        (without("layers.1."), r"model\.layers\.1"),
        (without("embed_tokens"), "embed_tokens"),
        (without("norm"), "norm"),
        (lambda weights: weights.update(extra=torch.zeros(2)), "unexpected: extra"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(3)}), r"model\.norm\.weight \[3\] instead of"),
        (lambda weights: [tensor.fill_(torch.nan) for tensor in weights.values()], "NaN or infinity"),
        (lambda weights: weights["model.norm.weight"].fill_(torch.inf), r"NaN or infinity in model\.norm\.weight"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(192, dtype=torch.int32)}), "norm.* holds I32"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(192, dtype=torch.complex64)}), "norm.* C64"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(192, dtype=torch.bool)}), "norm.* BOOL"),
    ],
    ids=[
        "no mlp",
        "no layer",
        "no embeddings",
        "no norms",
        "one more",
        "shape",
        "all NaN",
        "infinity",
        "int",
        "complex",
        "bool",
    ],
)
def test_weights_that_are_not_the_models_are_named(folder, change, named):
    change_weights(folder, change)
    with pytest.raises(ValueError, match=named) as error:
        AudioLLM.from_pretrained(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_cut_weights_are_named(folder, share):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut off or damaged"):
        AudioLLM.from_pretrained(folder)


@pytest.mark.parametrize(
    "index",
    [{}, {"weight_map": None}, {"weight_map": {}}, {"weight_map": {"a": "../../outside.safetensors"}}, []]
    + [{"weight_map": {"a": name}} for name in ("/etc/passwd", "model.bin", 3, "lost.safetensors")],
    ids=range(9),
)
def test_an_index_names_files_of_its_own_folder(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        AudioLLM.from_pretrained(folder)


JSON_FILES = (
    "config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "audio_tokenizer/config.json", "audio_tokenizer/decoder/config.json",
)  # fmt: skip
BROKEN = ["", "{", "[]", "null", "3", '"text"', "[" * 100_000, "\x00", "9" * 5000]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("name", JSON_FILES)
def test_settings_that_are_none_are_one_error(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - of many authors; it must name the place
        _ = AudioLLM.from_pretrained(folder).processor.audio_tokenizer.can_decode
    assert str(folder) in str(error.value)


WRONG_VALUES = [None, -1, 0, "x", [], {}, 10**9, 1.5]
KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size", "model_type")


@pytest.mark.parametrize("value", WRONG_VALUES, ids=range(len(WRONG_VALUES)))
@pytest.mark.parametrize("key", KEYS)
def test_wrong_values_are_one_error(folder, key, value):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError) as error:  # noqa: PT011 - of many authors; it must name the place
        AudioLLM.from_pretrained(folder)
    assert str(folder) in str(error.value)


def test_code_beside_a_model_is_neither_run_nor_asked_about(folder, tmp_path, monkeypatch):
    made = tmp_path / "made"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(made)!r})\n")
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        values = json.loads((folder / name).read_text())
        values["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoProcessor"), "evil.Evil")
        values["auto_map"]["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
        if name == "config.json":
            values["model_type"] = "evil"
        (folder / name).write_text(json.dumps(values))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    with pytest.raises(ValueError, match=str(folder)):
        AudioLLM.from_pretrained(folder)
    assert not made.exists()


@pytest.mark.parametrize("codec_path", ["../private", "/etc", "audio_tokenizer/../../private", 3, "link"])
def test_nothing_from_outside_the_folder_is_read_or_saved(folder, tmp_path, codec_path):
    private = Path(shutil.copytree(folder / "audio_tokenizer", tmp_path / "private"))
    (folder / "link").symlink_to(private)
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"codec_path": codec_path}))
    with pytest.raises(ValueError, match="codec_path="):
        AudioLLM.from_pretrained(folder)


def test_saving_copies_what_belongs_to_a_tokenizer_and_no_links(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "audio_tokenizer" / "id_rsa").write_text("secret")
    (folder / "audio_tokenizer" / "notes").mkdir()
    AudioLLM.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    saved = {path.name for path in (tmp_path / "saved" / "audio_tokenizer").iterdir()}
    assert {"config.json", WEIGHTS, "decoder"} <= saved
    assert not saved & {"id_rsa", "notes"}
    (folder / "audio_tokenizer" / "README.md").unlink(missing_ok=True)
    (folder / "audio_tokenizer" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"README\.md is a link"):
        AudioLLM.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "audio_tokenizer" / "README.md").exists()


def test_no_auto_class_of_transformers_is_trusted_with_code():
    """Every call of an Auto class's from_pretrained says so, in all of the source."""
    open_calls = []
    for path in sorted(path for top in ("audiollm", "tokenizer", "data", "training", "benchmarks")
                       for path in (ROOT / top).rglob("*.py")):  # fmt: skip
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "from_pretrained" or "Auto" not in ast.unparse(node.func.value):
                continue
            said = {one.arg: one.value for one in node.keywords}.get("trust_remote_code")
            if not (isinstance(said, ast.Constant) and said.value is False):
                open_calls.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert open_calls == []


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    asked = []
    told = "runs/nothing is neither a folder here nor a model on the Hub: no network"

    def offline(name, **options):
        asked.append((name, options["allow_patterns"]))
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("audiollm.tokenizer.checkpoints.folders.snapshot_download", offline)
    for load in (AudioLLM.from_pretrained, load_causal_lm, load_text_tokenizer):
        with pytest.raises(ValueError, match=told):
            load("runs/nothing")
    assert asked == [("runs/nothing", ["config.json"])] * 3
