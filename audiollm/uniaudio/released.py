"""Weights under the names of the published code: other names, and queries, keys and values in one matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiollm.tokenizer.checkpoints.tensors import (
    check_finite,
    check_shapes,
    load_pickle,
    read_safetensors,
    stored_shapes,
)

from .configuration import UniAudioLMConfig

_STACKS = {
    "backbone.transformer": "text_llm.model",
    "audio_understanding_expert.transformer": "understanding_expert",
    "audio_generation_expert.transformer": "generation_expert",
    "decoder.transformer": "local_decoder",
}
_CONFIGS = {
    "text_llm.model": "text_config",
    "understanding_expert": "understanding_expert_config",
    "generation_expert": "generation_expert_config",
    "local_decoder": "local_decoder_config",
}
_IN_A_LAYER = {
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
    "attn.proj": "self_attn.o_proj",
    "mlp.fc_1": "mlp.gate_proj",
    "mlp.fc_2": "mlp.up_proj",
    "mlp.proj": "mlp.down_proj",
}
_FUSED = ("q_proj", "k_proj", "v_proj")
_OTHERS = {"backbone.lm_head.weight": "text_llm.lm_head.weight"}
_SAME = ("audio_embeddings.weight", "projection.weight", "audio_head")
_WRAPPERS = ("model", "state_dict")


def to_released(tensors: Mapping[str, Tensor], config: UniAudioLMConfig) -> dict[str, Tensor]:
    """Renames tensors of a `UniAudioLM`, weights or gradients, to the names of the published code.

    Args:
        tensors: by our names; queries, keys and values of a layer all or none.
        config: of the model.

    Raises:
        ValueError: if layers are others than Llama's, for which there are no such names.
    """
    check_llama(config)
    released = {}
    for name, tensor in tensors.items():
        fused = re.fullmatch(r"(.+\.self_attn)\.q_proj\.weight", name)
        if fused:
            parts = [tensors[f"{fused[1]}.{part}.weight"] for part in _FUSED]
            released[_released_name(f"{fused[1]}.qkv.weight")] = torch.cat(parts)
        elif not re.search(r"\.self_attn\.[kv]_proj\.weight$", name):
            released[_released_name(name)] = tensor
    return released


def from_released(tensors: Mapping[str, Tensor], config: UniAudioLMConfig) -> dict[str, Tensor]:
    """The way back from `to_released`."""
    check_llama(config)
    ours = {}
    for name, tensor in tensors.items():
        found = _our_name(name)
        if not found.endswith(".self_attn.qkv.weight"):
            ours[found] = tensor
            continue
        before = found.removesuffix(".qkv.weight")
        sizes = _sizes_of_fused(config, before)
        # Copies: the three would keep each other's memory, and could not be saved apart.
        for part, piece in zip(_FUSED, tensor.split(sizes), strict=True):
            ours[f"{before}.{part}.weight"] = piece.clone()
    return ours


def read_released(path: Path, expected: Mapping[str, Tensor], config: UniAudioLMConfig) -> dict[str, Tensor]:
    """Reads a file of the published layout.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote.
        expected: the ``state_dict()`` of the model, of which only names and shapes matter.
        config: of the model.

    Returns:
        Tensors by our names.

    Raises:
        ValueError: if the file is damaged, holds code, or other tensors than the configuration wants.
    """
    wanted = to_released({name: tensor.to("meta") for name, tensor in expected.items()}, config)
    if path.suffix == ".safetensors":
        check_shapes(wanted, stored_shapes(path), path)
        tensors = read_safetensors(path)
    else:
        tensors = _unwrapped(load_pickle(path), path)
        check_shapes(wanted, {name: list(tensor.shape) for name, tensor in tensors.items()}, path)
    check_finite(tensors, path)
    return from_released(tensors, config)


def check_llama(config: UniAudioLMConfig) -> None:
    """Refuses layers that the published layout has no names for.

    Raises:
        ValueError: naming the part.
    """
    for part in _CONFIGS.values():
        found = getattr(config, part)
        if found.model_type != "llama" or found.attention_bias or found.mlp_bias:
            raise ValueError(
                f"{part}: the published layout knows Llama's layers without biases, not {found.model_type}'s"
            )
    if config.text_config.tie_word_embeddings:
        raise ValueError(
            "text_config.tie_word_embeddings: the published layout holds a head of its own; set it to False"
        )


def _unwrapped(values: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(values, dict) and any(isinstance(values.get(name), dict) for name in _WRAPPERS):
        values = next(values[name] for name in _WRAPPERS if isinstance(values.get(name), dict))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not tensors by name")
    wrong = [name for name, value in values.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]!r} is a {type(values[wrong[0]]).__name__}; only tensors by name are expected"
        )
    return {name.removeprefix("module."): tensor for name, tensor in values.items()}


def _sizes_of_fused(config: UniAudioLMConfig, attention: str) -> list[int]:
    """Rows of queries, keys and values of the layer with an attention of this name."""
    stack = next(part for prefix, part in _CONFIGS.items() if attention.startswith(f"{prefix}."))
    found = getattr(config, stack)
    return [found.num_attention_heads * found.head_dim, *[found.num_key_value_heads * found.head_dim] * 2]


def _our_name(name: str) -> str:
    if name in _SAME:
        return name
    if name in _OTHERS:
        return _OTHERS[name]
    for released, ours in _STACKS.items():
        if name.startswith(f"{released}."):
            return f"{ours}.{_in_stack(name.removeprefix(f'{released}.'))}"
    raise ValueError(f"{name} is no weight of the published layout")


def _in_stack(name: str) -> str:
    layer = re.fullmatch(r"h\.(\d+)\.(.+)\.weight", name)
    if layer:
        inner = "self_attn.qkv" if layer[2] == "attn.qkv" else _IN_A_LAYER[layer[2]]
        return f"layers.{layer[1]}.{inner}.weight"
    return {"wte.weight": "embed_tokens.weight", "ln_f.weight": "norm.weight"}[name]


def _released_name(name: str) -> str:
    if name in _SAME:
        return name
    for released, ours in _OTHERS.items():
        if name == ours:
            return released
    for released, ours in _STACKS.items():
        if name.startswith(f"{ours}."):
            inner = name.removeprefix(f"{ours}.")
            layer = re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", inner)
            if not layer:
                return f"{released}.{ {'embed_tokens.weight': 'wte.weight', 'norm.weight': 'ln_f.weight'}[inner] }"
            names = {**{ours: theirs for theirs, ours in _IN_A_LAYER.items()}, "self_attn.qkv": "attn.qkv"}
            return f"{released}.h.{layer[1]}.{names[layer[2]]}.weight"
    raise ValueError(f"{name} has no name in the published layout")
