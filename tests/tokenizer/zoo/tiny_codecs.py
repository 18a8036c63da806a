"""Tiny random codecs of transformers, whose codes vary with the sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    MimiConfig,
    MimiModel,
    PreTrainedModel,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2Model,
    XcodecConfig,
    XcodecModel,
)


def encodec(**values: Any) -> PreTrainedModel:
    """Strides 4 · 2, of 8 samples; up to 4 codebooks of 16."""
    config = {
        "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [4, 2], "codebook_size": 16, "codebook_dim": 16,
        "num_lstm_layers": 1, "target_bandwidths": [12.0, 24.0, 48.0],
    }  # fmt: skip
    return EncodecModel(EncodecConfig(**config | values))


def mimi(**values: Any) -> PreTrainedModel:
    """Strides 4 · 2 · 2, of 16 samples; 4 codebooks of 16; attention over 12 steps."""
    config = {
        "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [4, 2], "codebook_size": 16, "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8, "num_quantizers": 4, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32,
        "upsample_groups": 16, "sliding_window": 12, "layer_scale_initial_scale": 0.5,
    }  # fmt: skip
    return MimiModel(MimiConfig(**config | values))


def dac(**values: Any) -> PreTrainedModel:
    """Strides 2 · 5, of 10 samples; 3 codebooks of 16."""
    config = {
        "encoder_hidden_size": 4, "decoder_hidden_size": 16, "downsampling_ratios": [2, 5], "n_codebooks": 3,
        "codebook_size": 16, "codebook_dim": 4,
    }  # fmt: skip
    return DacModel(DacConfig(**config | values))


def xcodec(**values: Any) -> PreTrainedModel:
    """Strides of 320 samples, as the semantic encoder has them; up to 3 codebooks of 16."""
    acoustic = DacConfig(
        encoder_hidden_size=2, decoder_hidden_size=32, downsampling_ratios=[8, 5, 4, 2], hidden_size=16,
        n_codebooks=1, codebook_size=16, codebook_dim=4,
    )  # fmt: skip
    semantic = HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=[8] * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    config: dict[str, Any] = {
        "acoustic_model_config": acoustic.to_dict() | {"hidden_size": 32, "upsampling_ratios": [8, 5, 4, 2]},
        "semantic_model_config": semantic.to_dict(),
        "codebook_size": 16,
        "target_bandwidths": [0.2, 0.6],
    }
    return XcodecModel(XcodecConfig(**config | values))


def xcodec2(**values: Any) -> PreTrainedModel:
    """Strides of 320 samples; 1 codebook of 16."""
    semantic = Wav2Vec2BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, output_hidden_size=16,
        conv_depthwise_kernel_size=3, left_max_position_embeddings=4, right_max_position_embeddings=4,
    )  # fmt: skip
    config: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 8,
        "num_key_value_heads": 8, "head_dim": 8, "encoder_hidden_size": 2, "quantization_dim": 80,
        "quantization_levels": [4, 4], "semantic_model_config": semantic.to_dict(),
    }  # fmt: skip
    return Xcodec2Model(Xcodec2Config(**config | values))


MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    "encodec": encodec, "mimi": mimi, "dac": dac, "xcodec": xcodec, "xcodec2": xcodec2,
}  # fmt: skip
"""What makes one, by the kind's name."""


def make_codec(kind: str, **values: Any) -> PreTrainedModel:
    """A codec of that kind; ``values`` are of its config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MODELS[kind](**values)
        _draw_codebooks(model)
    return model.eval()


def _draw_codebooks(model: nn.Module) -> None:
    """Fresh codebooks are zero, or so large that one entry is nearest to everything."""
    for name, buffer in model.named_buffers():
        if name.endswith(("codebook.embed", "codebook.embed_sum")):
            buffer.copy_(torch.randn(buffer.shape) * 0.3)
    for name, weight in model.named_parameters():
        if name.startswith("acoustic_encoder.") and name.endswith(("conv1.weight", "conv2.weight")):
            weight.data.normal_(std=weight[0].numel() ** -0.5)
        elif "snake" not in name and "norm" not in name and weight.dim() > 1:
            weight.data.mul_(20 if "fc_encoder" in name or "project_in" in name else 1.5)
