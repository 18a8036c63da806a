"""A hash of everything that decides a tokenizer's codes, for cache keys and manifests."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING

import torch

from .layouts import is_left_out

if TYPE_CHECKING:
    from .modeling import UniAudioTokenizer

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
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(parts) and not is_left_out(name, config):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
