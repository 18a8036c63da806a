"""Stacks of a text LLM's own layers: the experts around it and the local decoder are made of the same kind.

What runs are the layer classes of transformers; nothing of them is written again.
"""
# Shapes: B rows, S steps, D width.

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
"""Values of ``model_type`` whose causal LMs are taken: decoder layers over ``inputs_embeds``, a norm, a linear head."""
_OF_A_TEXT = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings")
_OF_A_DEPTH = ("layer_types", "max_window_layers", "architectures", "transformers_version", "_name_or_path")


def check_family(config: Any, name: str, user: str = "UniAudioLM") -> None:
    """Refuses a configuration whose layers are of another kind.

    Args:
        config: of a text LLM.
        name: what messages call the LLM.
        user: what messages call that which is built around it.

    Raises:
        ValueError: naming the kinds that are taken.
    """
    family = getattr(config, "model_type", None) or type(config).__name__
    if family not in FAMILIES:
        raise ValueError(
            f"{name} is of the family {family!r}: {user} is built around causal LMs of these: {', '.join(FAMILIES)}"
        )


def read_config(values: dict[str, Any] | PretrainedConfig, name: str) -> PretrainedConfig:
    """A configuration of a supported family, from its plain values if need be.

    Raises:
        ValueError: if the values have no ``model_type``, or one of another family.
    """
    if isinstance(values, PretrainedConfig):
        check_family(values, name)
        return values
    others = dict(values)
    family = others.pop("model_type", None)
    if family is None:
        raise ValueError(f"{name} has no model_type: give one of {', '.join(FAMILIES)}")
    if family not in FAMILIES:
        raise ValueError(
            f"{name} is of the family {family!r}: UniAudioLM is built around causal LMs of these: {', '.join(FAMILIES)}"
        )
    return AutoConfig.for_model(family, **others)


def config_like(config: PretrainedConfig, **sizes: Any) -> PretrainedConfig:
    """The configuration of a stack of such layers without a text vocabulary.

    Args:
        config: of the text LLM.
        sizes: what differs, such as ``num_hidden_layers``.

    Raises:
        ValueError: if layers of this family have no such setting, or the width is no multiple of the heads.
    """
    values = config.to_dict()
    unknown = sizes.keys() - values.keys() - {"head_dim"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: layers of {config.model_type} have no such setting")
    for name in (*_OF_A_TEXT, *_OF_A_DEPTH):
        values.pop(name, None)
    if "hidden_size" in sizes and "head_dim" not in sizes:
        values.pop("head_dim", None)
    family = values.pop("model_type")
    without_text = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    found = AutoConfig.for_model(family, **{**values, **without_text, **sizes})
    if sizes.get("head_dim") is None and found.hidden_size % found.num_attention_heads:
        raise ValueError(
            f"hidden_size={found.hidden_size} is no multiple of num_attention_heads={found.num_attention_heads}: give "
            "sizes that fit, or head_dim"
        )
    found._attn_implementation = config._attn_implementation
    return found


def make_stack(config: PretrainedConfig) -> PreTrainedModel:
    """Makes a stack that takes ``inputs_embeds`` ``[B, S, D]`` alone: it has no table of words."""
    stack = AutoModel.from_config(config)
    stack.embed_tokens = None
    return stack


def make_text_llm(config: PretrainedConfig) -> PreTrainedModel:
    """Makes an untrained causal LM."""
    return AutoModelForCausalLM.from_config(config)
