"""Text encoders: any of transformers, or a small one over bytes that needs no files and is trained along."""
# Shapes: B texts, L tokens.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    ByT5Tokenizer,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

from audiollm.tokenizer.checkpoints.tensors import check_loaded


@dataclass(frozen=True)
class TextBatch:
    """Texts as tokens.

    Args:
        input_ids: right-padded, int64 ``[B, L]``.
        attention_mask: 1 where there is a token, int64 ``[B, L]``.
    """

    input_ids: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device) -> TextBatch:
        """A copy on a device."""
        return TextBatch(self.input_ids.to(device), self.attention_mask.to(device))


def load_text_encoder(source: str) -> tuple[PreTrainedModel, Any]:
    """Opens a text encoder of transformers, such as T5's, BERT or RoBERTa, with its tokenizer.

    Args:
        source: folder or Hub id. Of a model with a decoder, the encoder alone is loaded.

    Raises:
        ValueError: if it is none, or weights are missing.
        OSError: as transformers.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    model, report = _kind_for(config, source).from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    check_loaded(model, report, source, may_hold_more=True, instead="name a text encoder such as google/flan-t5-base")
    return model, AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def small_text_encoder(size: int, num_layers: int, num_heads: int) -> tuple[PreTrainedModel, Any]:
    """A small transformer over the bytes of a text, with random weights; its layers are T5's.

    Args:
        size: width.
        num_layers: blocks.
        num_heads: of an attention; they divide the width.

    Raises:
        ValueError: if they do not.
    """
    if size % num_heads:
        raise ValueError(f"text.size={size} is no multiple of text.num_heads={num_heads}")
    config = T5Config(
        vocab_size=259, d_model=size, d_kv=size // num_heads, d_ff=4 * size, num_layers=num_layers,
        num_heads=num_heads,
        # Dropout would differ from process to process; what is left out is the whole text, for guidance.
        dropout_rate=0.0, is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return make_text_encoder(config), ByT5Tokenizer(extra_ids=0)


def make_text_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """An untrained text encoder.

    Raises:
        ValueError: if it is of no kind that encodes texts.
    """
    model: PreTrainedModel = _kind_for(config, "text_config").from_config(config)
    return model


def _kind_for(config: PretrainedConfig, source: str) -> Any:
    if config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
        return AutoModelForTextEncoding
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "vocab_size", None) is None:
        raise ValueError(
            f"{source} holds a {config.model_type}, which is no text encoder that is known: use one of "
            f"{', '.join(sorted(MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES))}, or a text model without an encoder of its own"
        )
    return AutoModel


def read_text_tokenizer(folder: Path) -> Any:
    """The tokenizer that `save_pretrained` wrote.

    Raises:
        ValueError: if there is none.
    """
    if not (folder / "tokenizer_config.json").is_file():
        raise ValueError(f"{folder} holds no text tokenizer: copy the model's whole folder")
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def tokenize_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> TextBatch:
    """Turns texts into tokens.

    Raises:
        ValueError: naming a text that has more tokens than the model reads; nothing is cut.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the text tokenizer has no padding token: set its pad_token")
    made = tokenizer(list(texts), padding=True, padding_side="right", return_tensors="pt")
    for text, count in zip(texts, made["attention_mask"].sum(dim=1).tolist(), strict=True):
        if count > max_tokens:
            beginning = text if len(text) <= 60 else f"{text[:60]} …"
            raise ValueError(f"the text {beginning!r} has {count} tokens, and the model reads {max_tokens}: shorten it")
    return TextBatch(made["input_ids"].long(), made["attention_mask"].long())


def count_tokens(tokenizer: Any, text: str) -> int:
    """Tokens of a text, marks included."""
    return len(tokenizer(text)["input_ids"])
