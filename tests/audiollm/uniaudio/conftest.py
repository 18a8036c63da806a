"""Tiny multi-stream LMs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from audiollm.uniaudio import UniAudioLM

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture
def make_text_llm() -> Callable[..., PreTrainedModel]:
    """Makes a tiny text LLM of a family, with weights so large that logits differ."""

    def make(family: str = "llama", **sizes: Any) -> PreTrainedModel:
        torch.manual_seed(5)
        config = AutoConfig.for_model(family, **{**SIZES, "initializer_range": 0.3, **sizes})
        return AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture
def make_lm(make_text_llm: Callable[..., PreTrainedModel]) -> Callable[..., UniAudioLM]:
    """Makes a tiny multi-stream LM around a text LLM of a family."""

    def make(family: str = "llama", sizes: dict[str, Any] | None = None, **options: Any) -> UniAudioLM:
        values: dict[str, Any] = {
            "reasoning_codebook_size": 5, "reconstruction_codebook_size": 7, "num_audio_streams": 3,
            "num_understanding_layers": 2, "num_generation_layers": 1,
            "local_decoder": {"hidden_size": 12, "num_hidden_layers": 1},
            "text_parts": {"transcription": (30, 31), "lyric": (32, 33), "caption": (34, 35)},
        }  # fmt: skip
        return UniAudioLM.from_text_llm(make_text_llm(family, **(sizes or {})), **{**values, **options})

    return make


@pytest.fixture
def text_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the marks that a text LLM has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<pad>", "<end>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<pad>")
