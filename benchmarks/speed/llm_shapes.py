"""Shapes of published LLMs, extended by an audio vocabulary: for models with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import Qwen2Config

from audiollm.vocabulary import EMBEDDING_MULTIPLE


@dataclass(frozen=True)
class LLMShape:
    """Sizes of a Qwen2 whose input and output tables are tied.

    Attributes:
        name: of the published model.
        hidden_size: width.
        feed_forward_size: width inside the feed-forward layers.
        num_layers: depth.
        num_heads: query heads.
        num_key_value_heads: heads of keys and values.
        vocabulary_size: rows of the tables.
    """

    name: str
    hidden_size: int
    feed_forward_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    vocabulary_size: int


# 151,665 text tokens, 8,192 codes and the two marks of audio, rounded up.
_EXTENDED = 159_872

QWEN_05B = LLMShape("Qwen2.5-0.5B", 896, 4864, 24, 14, 2, _EXTENDED)
QWEN_15B = LLMShape("Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, _EXTENDED)
SMOKE_SHAPE = LLMShape("smoke", 32, 64, 2, 2, 1, 512)


def qwen_config(shape: LLMShape, least_rows: int = 0) -> Qwen2Config:
    """The configuration of a shape.

    Args:
        shape: the sizes.
        least_rows: rows that the tables have at least, for a text tokenizer with more tokens.
    """
    rows = max(shape.vocabulary_size, -(-least_rows // EMBEDDING_MULTIPLE) * EMBEDDING_MULTIPLE)
    return Qwen2Config(
        vocab_size=rows,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.feed_forward_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
