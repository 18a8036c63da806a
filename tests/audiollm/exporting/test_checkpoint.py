"""One folder of a model: adapters merged, number formats, rounded weights; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import audiollm.loading
from audiollm import AudioLLM
from audiollm.cli import main
from audiollm.exporting import export_checkpoint
from audiollm.tokenizer import UniAudioTokenizer

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs pip install 'audiollm[quantize]'"
)
IDS = torch.arange(5, 45)[None]


@pytest.fixture
def model(
    make_llm: Callable[..., Qwen2ForCausalLM],
    text_tokenizer: PreTrainedTokenizerFast,
    codec: UniAudioTokenizer,
    tmp_path: Path,
) -> Path:
    """A tiny Audio-LLM with its audio tokenizer, in float32."""
    AudioLLM.create(make_llm(), text_tokenizer, codec).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "LICENSE").write_text("terms", encoding="utf-8")
    return tmp_path / "model"


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    """A LoRA adapter of that model which changes what it says."""
    llm = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(llm, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(model)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(source: Path | str, output: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit):
        main(["export", str(source), str(output), *options])
    return capsys.readouterr().err


@torch.no_grad()
def logits(llm: Qwen2ForCausalLM) -> torch.Tensor:
    return llm(IDS).logits.float()


def test_a_merged_adapter_is_a_plain_checkpoint_with_all_that_belongs_to_it(adapter: Path, tmp_path: Path) -> None:
    merged = AudioLLM.from_pretrained(adapter, dtype="float32")
    folder = export_checkpoint(adapter, tmp_path / "out", "float32")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(plain), logits(merged.model))
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == merged.processor.tokenizer.get_vocab()
    assert AudioLLM.from_pretrained(folder).processor.audio_tokenizer.codebook_size == 64
    assert (folder / "LICENSE").read_text(encoding="utf-8") == "terms"
    assert "Exported with weights in float32" in (folder / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.json"))


@pytest.mark.parametrize("number_format", ["bfloat16", "float16"])
def test_weights_have_the_format_that_is_asked_for(model: Path, number_format: str, tmp_path: Path) -> None:
    main(["export", str(model), str(tmp_path / "out"), "--format", number_format, "--json"])
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in stored.values()} == {f"torch.{number_format}"}
    exact = load_file(model / "model.safetensors")
    assert all(torch.equal(stored[name], exact[name].to(stored[name].dtype)) for name in exact)


def test_outputs_that_cannot_be_taken_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert f"{model} is the model itself" in refused(model, model, capsys)
    assert f"lies inside the model {model}" in refused(model, model / "deep" / "out", capsys, "--format", "onnx")
    assert f"{tmp_path / 'full'} is not empty" in refused(model, tmp_path / "full", capsys)
    assert "is a file" in refused(model, tmp_path / "full" / "notes.txt", capsys)
    assert "give bfloat16, float16, float32, int8, int4 or onnx, not gguf" in refused(
        model, tmp_path / "out", capsys, "--format", "gguf"
    )
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_named(
    model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    shutil.copytree(model, tmp_path / "rounded")
    (tmp_path / "rounded" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = refused(tmp_path / "rounded", tmp_path / "out", capsys)
    assert f"{tmp_path / 'rounded'} is quantized already, by gptq: export the model that it was made from" in told
    model.rename(tmp_path / "moved")
    assert f"a LoRA adapter of {model}, which is not there" in refused(adapter, tmp_path / "out", capsys)
    assert "is no Audio-LLM folder" in refused(tmp_path / "moved" / "audio_tokenizer", tmp_path / "out", capsys)
    with pytest.raises(ValueError, match=r"number_format='int3': use one of bfloat16"):
        export_checkpoint(tmp_path / "moved", tmp_path / "out", "int3")  # type: ignore[arg-type]


@pytest.mark.parametrize("number_format", ["int8", "int4"])
def test_without_the_library_it_is_said_how_to_get_it(
    model: Path, number_format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiollm.loading, "find_spec", lambda name: None)
    told = refused(model, tmp_path / "out", capsys, "--format", number_format)
    assert f"--format {number_format} needs bitsandbytes: run `pip install 'audiollm[quantize]'`" in told


# --- rounded weights --------------------------------------------------------------------------------------------------


@pytest.fixture
def model_of_64(text_tokenizer: PreTrainedTokenizerFast, codec: UniAudioTokenizer, tmp_path: Path) -> Path:
    """One whose rows are 64 and 128 long, which is the length of a block of 4-bit weights, and twice that."""
    config = Qwen2Config(
        vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llm = Qwen2ForCausalLM(config).eval()
    AudioLLM.create(llm, text_tokenizer, codec).save_pretrained(tmp_path / "model64")
    return tmp_path / "model64"


@pytest.fixture(params=["int8", "int4"])
def rounded(request: pytest.FixtureRequest, model_of_64: Path, tmp_path: Path) -> Path:
    """The tiny model in fewer bits."""
    return export_checkpoint(model_of_64, tmp_path / request.param, request.param)


@needs_bitsandbytes
def test_rounded_weights_mean_nearly_the_same(model_of_64: Path, rounded: Path) -> None:
    whole = AudioLLM.from_pretrained(model_of_64, dtype="bfloat16")
    fewer = AudioLLM.from_pretrained(rounded)
    error = (logits(fewer.model) - logits(whole.model)).norm() / logits(whole.model).norm()
    assert 0 < error < (0.05 if rounded.name == "int8" else 0.3)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(rounded)), logits(fewer.model))
    # The rows of text and codes are those of the whole model.
    rows, exact = (one.model.get_input_embeddings().weight for one in (fewer, whole))
    assert torch.equal(rows, exact)
    assert fewer.model.get_output_embeddings().weight.data_ptr() == rows.data_ptr()
    answer = fewer.ask((torch.rand(16000), 16000), "What is it?", max_new_tokens=3)
    assert isinstance(answer, str)


@needs_bitsandbytes
def test_rounded_weights_are_not_rounded_trained_or_merged_again(rounded: Path, adapter: Path, tmp_path: Path) -> None:
    fewer = AudioLLM.from_pretrained(rounded, dtype="fastest")
    with pytest.raises(ValueError, match=f"{rounded.name} is quantized and cannot be rounded again"):
        fewer.to_int8()
    with pytest.raises(ValueError, match=f"{rounded.name} is quantized and cannot be saved again"):
        fewer.save_pretrained(tmp_path / "out")
    with pytest.raises(ValueError, match=f"{rounded.name} is quantized already, by bitsandbytes"):
        export_checkpoint(rounded, tmp_path / "out")
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = str(rounded)
    (adapter / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="is quantized and cannot be merged with the adapter"):
        AudioLLM.from_pretrained(adapter)


@needs_bitsandbytes
def test_a_format_that_would_have_no_effect_is_told(rounded: Path, caplog: pytest.LogCaptureFixture) -> None:
    AudioLLM.from_pretrained(rounded, dtype="bfloat16")
    assert "is not used" not in caplog.text
    AudioLLM.from_pretrained(rounded, dtype="float32")
    assert "computes in torch.bfloat16; dtype=float32 is not used" in caplog.text


@needs_bitsandbytes
@pytest.mark.parametrize("harm", ["no scales", "NaN", "another shape"])
def test_damaged_rounded_weights_are_refused(harm: str, rounded: Path) -> None:
    path = rounded / "model.safetensors"
    tensors = load_file(path)
    scales = next(name for name in tensors if name.endswith((".SCB", ".nested_absmax")))
    if harm == "no scales":
        tensors = {name: one for name, one in tensors.items() if not name.endswith((".SCB", "absmax"))}
    elif harm == "NaN":
        tensors[scales][0] = torch.nan
    else:
        tensors = {name: one[:-1] if name.endswith("norm.weight") else one for name, one in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=str(rounded)):
        AudioLLM.from_pretrained(rounded)


@needs_bitsandbytes
def test_rows_that_the_library_would_compute_wrongly_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(model, tmp_path / "out", capsys, "--format", "int4")
    assert f"{model}: model.layers.0." in told
    assert "has rows of 32, which bitsandbytes cannot compute with in 4 bits (only multiples of 64): use int8" in told
    assert not (tmp_path / "out").exists()
