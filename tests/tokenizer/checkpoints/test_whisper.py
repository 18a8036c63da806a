"""A Whisper model is taken whole or refused: transformers would draw what is missing at random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

from audiollm.tokenizer.checkpoints.whisper import load_whisper

SIZES = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 64}
SIZES |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8}
TOKENS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig(**SIZES, **TOKENS)).save_pretrained(tmp_path / "whisper")
    return tmp_path / "whisper"


def test_a_whole_model_is_loaded_also_out_of_one_that_writes_text(folder: Path) -> None:
    assert load_whisper(folder).config.d_model == 16


@pytest.mark.parametrize("change", ["missing", "wrong shape", "no numbers"])
def test_what_is_missing_or_misshapen_is_named(folder: Path, change: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("encoder.layer_norm.weight"))
    weights[name] = torch.zeros(3)
    if change == "no numbers":
        weights[name] = torch.full((16,), torch.nan)
    if change == "missing":
        del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder\.layer_norm\.weight"):
        load_whisper(folder)


def test_a_cut_file_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut off or damaged"):
        load_whisper(folder)
