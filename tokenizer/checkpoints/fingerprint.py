"""Hashes of everything that decides a tokenizer's codes, or a decoder's sound, for cache keys and manifests."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from audiollm.tokenizer.configuration import UniAudioTokenizerConfig

from .names import is_left_out

# Config keys that decide the codes, beside the weights; sizes follow from the weights' shapes.
CODE_DECIDING_KEYS = (
    "activation_function",
    "encoder_attention_heads",
    "pooling_kernel_size",
    "pooling_type",
    "pooling_position",
    "quantize_position",
    "quantize_causal_encoder",
    "quantize_causal_block_size",
    "encoder_causal_attention",
    "encoder_causal_convolution",
)
SAE_KEYS = (
    "encoder_residual_source_position",
    "encoder_residual_target_position",
    "use_residual_adapter",
    "use_residual_gate",
)


def tokenizer_fingerprint(config: UniAudioTokenizerConfig, weights: Mapping[str, Tensor]) -> str:
    """Returns a SHA-256 (hex) over the config keys and weights that decide the codes, independent of the device.

    Args:
        config: of the tokenizer.
        weights: under our names, as its ``state_dict()`` gives them.
    """
    # Layers behind the quantizer do not reach the codes: a tokenizer with them is the same as one without.
    config = copy.deepcopy(config)
    config.quantize_encoder_only = True
    keys = CODE_DECIDING_KEYS + (SAE_KEYS if config.sae_is_active else ())
    digest = hashlib.sha256(json.dumps({key: getattr(config, key) for key in keys}).encode())
    sae = ("sae.",) if config.sae_is_active else ()
    parts = ("encoder.", "codebook.weight", "codebook.metric", "codebook.project_in.", *sae)
    decisive = {
        name: tensor
        for name, tensor in weights.items()
        if name.startswith(parts) and not name.startswith("encoder.layer_norm.") and not is_left_out(name, config)
    }
    _add_weights(digest, decisive)
    return digest.hexdigest()


def decoder_fingerprint(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Returns a SHA-256 (hex) over the settings and weights of a waveform decoder, independent of the device."""
    digest = hashlib.sha256(json.dumps(settings, default=str).encode())
    _add_weights(digest, weights)
    return digest.hexdigest()


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Returns a SHA-256 (hex) over named weights, independent of the device."""
    digest = hashlib.sha256()
    _add_weights(digest, weights)
    return digest.hexdigest()


def _add_weights(digest: hashlib._Hash, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # As bytes, because numpy knows no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
