"""Names and sizes of released weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .configuration import BRANCHES

_RULES = (
    ("reasoning.query", "audio_thinking.cls_token"),
    ("reasoning.downsample.", "audio_thinking.down_sampling_layer_whisper."),
    ("reasoning.merge.", "audio_thinking.semantic_merge_proj."),
    (r"reasoning.blocks.(\d+).attention.(q_norm|k_norm).", r"audio_thinking.encoder_transformers.\1.self_attn.\2."),
    (r"reasoning.blocks.(\d+).attention.(qkv|out).", r"audio_thinking.encoder_transformers.\1.self_attn.to_\2."),
    (r"reasoning.blocks.(\d+).attention_scale", r"audio_thinking.encoder_transformers.\1.self_attn_scale.scale"),
    (r"reasoning.blocks.(\d+).feed_scale", r"audio_thinking.encoder_transformers.\1.ff_scale.scale"),
    (r"reasoning.blocks.(\d+).feed.inner.", r"audio_thinking.encoder_transformers.\1.ff.ff.0.proj."),
    (r"reasoning.blocks.(\d+).feed.outer.", r"audio_thinking.encoder_transformers.\1.ff.ff.2."),
    ("reasoning.quantizer.", "audio_thinking.reasoning_vq."),
    ("reconstruction.downsample.(whisper|wavlm).", r"d_conv_\1."),
    ("reconstruction.downsample.(semantic|acoustic).", r"d_conv_embedding_\1."),
    ("reconstruction.fuse.(phone|acoustic).", r"cond_fusion_layer_\1."),
    ("reconstruction.fuse.structure.", "cond_fusion_layer_semantic."),
    ("reconstruction.film.(phone|acoustic).", r"time_film_\1."),
    ("reconstruction.film.structure.", "time_film_semantic."),
    ("reconstruction.adaptor.", "reason_adaptor."),
    ("reconstruction.quantizers.phone.", "vq_pronunciation_semantic."),
    ("reconstruction.quantizers.structure.", "vq_structure_semantic."),
    ("reconstruction.quantizers.acoustic.", "vq_acoustic."),
    ("heads.structure.", "structure_semantic_decoder."),
    ("heads.phone.", "pronunciation_decoder."),
    (r"_decoder.(first|last).", lambda match: f"_decoder.conv{1 if match[1] == 'first' else 2}.conv."),
    (r"_decoder.stages.(\d+).(conv|deconv).", r"_decoder.conv_blocks.\1.conv.\2."),
    (r"_decoder.stages.(\d+).units.(\d+).wide.", r"_decoder.conv_blocks.\1.res_units.\2.conv1.conv."),
    (r"_decoder.stages.(\d+).units.(\d+).narrow.", r"_decoder.conv_blocks.\1.res_units.\2.conv2."),
    ("flow.zero_condition", "zero_cond_embedding1"),
    ("flow.condition.", "cond_feature_emb."),
    (r"flow.estimator.blocks.(\d+).attention.(q|k|v).", r"cfm_wrapper.estimator.transformer_blocks.\1.attn1.to_\2."),
    (r"flow.estimator.blocks.(\d+).attention.out.", r"cfm_wrapper.estimator.transformer_blocks.\1.attn1.to_out.0."),
    (r"flow.estimator.blocks.(\d+).inner.", r"cfm_wrapper.estimator.transformer_blocks.\1.ff.net.0.proj."),
    (r"flow.estimator.blocks.(\d+).outer.", r"cfm_wrapper.estimator.transformer_blocks.\1.ff.net.2."),
    (r"flow.estimator.blocks.(\d+).table", r"cfm_wrapper.estimator.transformer_blocks.\1.scale_shift_table"),
    ("flow.estimator.table", "cfm_wrapper.estimator.scale_shift_table"),
    ("flow.estimator.positions", "cfm_wrapper.estimator.pos_embed.pe"),
    ("flow.estimator.modulation.", "cfm_wrapper.estimator.adaln_single.linear."),
    ("flow.estimator.time.layers.0.", "cfm_wrapper.estimator.adaln_single.emb.timestep_embedder.linear_1."),
    ("flow.estimator.time.layers.2.", "cfm_wrapper.estimator.adaln_single.emb.timestep_embedder.linear_2."),
    ("flow.estimator.(input|output).conv.", r"cfm_wrapper.estimator.proj_\1.ffn_1."),
    ("flow.estimator.(input|output).linear.", r"cfm_wrapper.estimator.proj_\1.ffn_2."),
    ("cfm_wrapper.estimator.proj_input.", "cfm_wrapper.estimator.proj_in."),
    ("cfm_wrapper.estimator.proj_output.", "cfm_wrapper.estimator.proj_out."),
    (r".residual.codebooks.(\d+).weight", r".layers.\1._codebook.embed"),
    (r".residual.codebooks.(\d+).ema_count", r".layers.\1._codebook.cluster_size"),
    (r".residual.codebooks.(\d+).ema_weight", r".layers.\1._codebook.embed_avg"),
)  # fmt: skip
"""From our names to the released ones, one after another; a dot is a dot."""
_COMPILED = tuple((re.compile(pattern.replace(".", r"\.")), released) for pattern, released in _RULES)

UNUSED = (".rope.inv_freq", "._codebook.initted")
"""Ends of released names that hold nothing a model needs."""
OWN = (
    "audio_thinking.", "d_conv_", "cond_fusion_layer_", "time_film_", "reason_adaptor.", "vq_acoustic.",
    "vq_structure_semantic.", "vq_pronunciation_semantic.", "structure_semantic_decoder.", "pronunciation_decoder.",
    "zero_cond_embedding1", "cond_feature_emb.", "cfm_wrapper.",
)  # fmt: skip
"""Beginnings of released names; a checkpoint may hold frozen encoders beside them."""
DECODING = ("structure_semantic_decoder.", "pronunciation_decoder.", "zero_cond", "cond_feature_emb.", "cfm_wrapper.")
"""Of those, what only decoding or training needs."""
_STATISTICS = ("embed", "cluster_size", "embed_avg")

Shapes = Mapping[str, Sequence[int]]


def released_name(name: str) -> str:
    """What a release calls a weight of ours."""
    for pattern, released in _COMPILED:
        name = pattern.sub(released, name)
    return name


def is_kept(name: str, encoder_only: bool) -> bool:
    """Whether a tensor of a released file is one of a model's."""
    if not name.startswith(OWN) or name.endswith(UNUSED):
        return False
    return not (encoder_only and name.startswith(DECODING))


def as_released(name: str, shape: Sequence[int]) -> list[int]:
    """The shape that a weight of ours has in a release, by its released name: codebooks have an axis of one before."""
    return [1, *shape] if is_codebook(name) else list(shape)


def is_codebook(name: str) -> bool:
    """Whether a released name is of a codebook's entries or statistics."""
    return "._codebook." in name and name.rpartition(".")[2] in _STATISTICS


def as_ours(name: str, tensor: Tensor) -> Tensor:
    """A released tensor in our shape."""
    return tensor[0] if is_codebook(name) else tensor


def without_wrapper(name: str) -> str:
    """A name without what a data-parallel trainer put before it."""
    return name.removeprefix("module.")


def sizes_of(shapes: Shapes, source: Path, *, encoder_only: bool) -> dict[str, Any]:
    """Sizes of a released model, but for the heads of its flow, which no shape tells.

    Args:
        shapes: of the file's tensors.
        source: the file.
        encoder_only: whether there may be no decoder.

    Raises:
        ValueError: naming the tensors that would tell a size and are missing.
    """
    thinking = "audio_thinking."
    block = f"{thinking}encoder_transformers."
    estimator = "cfm_wrapper.estimator."
    needed = {
        "merge": f"{thinking}semantic_merge_proj.weight",
        "whisper": "d_conv_whisper.weight",
        "wavlm": "d_conv_wavlm.weight",
        "music": "d_conv_embedding_semantic.weight",
        "head": f"{block}0.self_attn.q_norm.weight",
        "inner": f"{block}0.ff.ff.2.parametrizations.weight.original1",
    }
    quantizers = {
        "reasoning": f"{thinking}reasoning_vq.",
        **{b: released_name(f"reconstruction.quantizers.{b}.") for b in BRANCHES},
    }
    needed |= {f"{name}_entries": f"{prefix}layers.0._codebook.embed" for name, prefix in quantizers.items()}
    if not encoder_only:
        needed |= {
            "latent": f"{estimator}proj_out.ffn_2.weight",
            "feed": f"{estimator}transformer_blocks.0.ff.net.0.proj.weight",
            "positions": f"{estimator}pos_embed.pe",
            "time": f"{estimator}adaln_single.emb.timestep_embedder.linear_1.weight",
        }
    _require(shapes, needed.values(), source)
    told = {name: shapes[released] for name, released in needed.items()}
    values: dict[str, Any] = {
        "size": told["merge"][0],
        "whisper_size": told["whisper"][0],
        "wavlm_size": told["wavlm"][0],
        "music_size": told["music"][0],
        "reasoning_layers": _count(shapes, block),
        "reasoning_head_size": told["head"][0],
        "reasoning_inner_size": told["inner"][1],
    }
    for name, prefix in quantizers.items():
        _, entries, code_size = told[f"{name}_entries"]
        values[f"{name}_quantizer"] = [_count(shapes, f"{prefix}layers."), entries, code_size]
    if not encoder_only:
        values |= {
            "latent_size": told["latent"][0],
            "dit_layers": _count(shapes, f"{estimator}transformer_blocks."),
            "dit_inner_size": told["feed"][0],
            "dit_positions": told["positions"][1],
            "dit_time_size": told["time"][1],
        }
    return values


def dit_size_of(shapes: Shapes) -> int | None:
    """Size of the vectors of a released flow's transformer; None if there is none."""
    pe = shapes.get("cfm_wrapper.estimator.pos_embed.pe")
    return None if pe is None else pe[-1]


def _require(shapes: Shapes, names: Iterable[str], source: Path) -> None:
    missing = sorted(set(names) - shapes.keys())
    if missing:
        raise ValueError(f"{source} holds half a ReasoningCodec at most; missing: {', '.join(missing)}")


def _count(shapes: Shapes, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(match[1]) for match in map(pattern.match, shapes) if match), default=-1)
