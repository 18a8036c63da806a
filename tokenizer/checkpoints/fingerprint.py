"""Hashes of everything that decides a tokenizer's codes, or a decoder's sound, for cache keys and manifests."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import nn

from .names import is_left_out

if TYPE_CHECKING:
    from audiollm.tokenizer.decoder.model import WaveformDecoder
    from audiollm.tokenizer.modeling import UniAudioTokenizer

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


def fingerprint(model: UniAudioTokenizer) -> str:
    """Returns a SHA-256 (hex) over the config keys and weights that decide the codes, independent of the device."""
    config = copy.deepcopy(model.config)
    config.quantize_encoder_only = True
    keys = CODE_DECIDING_KEYS + (SAE_KEYS if config.sae_is_active else ())
    digest = hashlib.sha256(json.dumps({key: getattr(config, key) for key in keys}).encode())
    parts = ("encoder.", "sae.", "codebook.weight") if config.sae_is_active else ("encoder.", "codebook.weight")
    weights = model.state_dict().items()
    _add_weights(
        digest, {name: own for name, own in weights if name.startswith(parts) and not is_left_out(name, config)}
    )
    return digest.hexdigest()


def decoder_fingerprint(decoder: WaveformDecoder) -> str:
    """Returns a SHA-256 (hex) over the config and weights of a waveform decoder, independent of the device."""
    digest = hashlib.sha256(json.dumps(asdict(decoder.config), default=str).encode())
    _add_weights(digest, decoder.state_dict())
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """Returns a SHA-256 (hex) over all weights of a module, independent of the device."""
    digest = hashlib.sha256()
    _add_weights(digest, module.state_dict())
    return digest.hexdigest()


def _add_weights(digest: hashlib._Hash, weights: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
