"""A small text LLM from nothing: a byte-level BPE of given texts, and a Qwen2 architecture with random weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TURN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, kw_only=True)
class SmallLLMConfig:
    """Sizes of a small LLM."""

    vocabulary_size: int = 2000
    """Entries of the text tokenizer at most, its three marks and the 256 bytes included."""

    hidden_size: int = 192
    """Width; each row of the embedding, audio rows included, has so many numbers."""

    num_layers: int = 4
    """Depth."""

    num_heads: int = 6
    """Attention heads."""

    num_key_value_heads: int = 6
    """Heads of keys and values; fewer than ``num_heads`` make them shared."""

    feed_forward_size: int = 512
    """Width inside the feed-forward layers."""

    context_length: int = 4096
    """Longest conversation in tokens; 25 are a second of audio."""

    def __post_init__(self) -> None:
        if self.vocabulary_size < 256 + len(TURN_MARKS):
            raise ValueError(f"vocabulary_size={self.vocabulary_size}: bytes and marks alone take 259 entries")
        if self.hidden_size % self.num_heads or self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size}, num_heads={self.num_heads}, num_key_value_heads="
                f"{self.num_key_value_heads}: each must be a multiple of the next"
            )


def small_text_tokenizer(texts: Iterable[str], config: SmallLLMConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the texts, with Qwen's marks: any text can be written in it, these in few tokens."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size,
        # All 256 bytes, seen in the texts or not, so that no text is ever unknown.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(mark, special=True) for mark in TURN_MARKS],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=config.context_length,
    )


def small_llm(text_tokenizer: PreTrainedTokenizerFast, config: SmallLLMConfig, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 architecture with random weights for the text tokenizer, input and output tables tied."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(text_tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.feed_forward_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_key_value_heads,
            max_position_embeddings=config.context_length,
            tie_word_embeddings=True,
        )
    )
