"""What released files call the weights, and the sizes that their shapes tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Shapes = Mapping[str, Sequence[int]]

RELEASED_HEADS = {1280: 16}
"""Heads of the teacher by its width, of releases: no tensor tells them."""

# Beginnings of our names, and what stands there in a release; the first that fits counts.
_SEMANTIC = (
    ("teacher.front_end.window", "encoder.front_end.0.spectrogram.window"),
    ("teacher.front_end.filters", "encoder.front_end.0.mel_scale.fb"),
    ("teacher.input_norm.", "encoder.init_bn."),
    ("teacher.patch.", "encoder.patch_embed.proj."),
    ("teacher.time_positions", "encoder.time_pos_embed"),
    ("teacher.frequency_position", "encoder.freq_pos_embed"),
    ("teacher.", "encoder."),
    ("bottleneck.compress.", "bottleneck.downsample."),
    ("bottleneck.restore.", "bottleneck.upsample."),
)
_WHOLE = (
    *((f"semantic.{own}", f"semantic_encoder.{released}") for own, released in _SEMANTIC),
    ("acoustic.front_end.window", "dasheng_tokenizer.encoder.front_end.mel_spec.spectrogram.window"),
    ("acoustic.front_end.filters", "dasheng_tokenizer.encoder.front_end.mel_spec.mel_scale.fb"),
    ("acoustic.patch.", "dasheng_tokenizer.encoder.patch_embed."),
    ("acoustic.norm.", "dasheng_tokenizer.encoder.norm."),
    ("acoustic_low.", "fc_a."),
    ("mean.", "fc_mu."),
    ("log_variance.", "fc_logvar."),
    ("upsample.", "dasheng_tokenizer.upsampler."),
    ("backbone.", "dasheng_tokenizer.decoder.backbone."),
    ("head.", "dasheng_tokenizer.decoder.head."),
)

UNUSED = ("init_bn.num_batches_tracked", "init_bn.1.num_batches_tracked", "head.istft.window")
"""Ends of released names that tell nothing: a counter of a training, and a window that is a constant."""
DECODING = ("dasheng_tokenizer.upsampler.", "dasheng_tokenizer.decoder.")


def semantic_names(own: Iterable[str]) -> dict[str, str]:
    """What ``semantic_encoder.pth`` calls the weights of a `SemanticEncoder`, by our names."""
    return {name: _renamed(name, _SEMANTIC) for name in own}


def whole_names(own: Iterable[str]) -> dict[str, str]:
    """What ``losatok_kl*.pth`` calls the weights of a `LoSATok`, by our names."""
    return {name: _renamed(name, _WHOLE) for name in own}


def _renamed(name: str, table: Sequence[tuple[str, str]]) -> str:
    for own, released in table:
        if name.startswith(own):
            return released + name.removeprefix(own)
    raise ValueError(f"{name} has no name in a release")


def spelling(name: str) -> str:
    """The name of MiDashengLM for what the repository's own copy of the teacher calls otherwise."""
    return name.replace("encoder.init_bn.1.", "encoder.init_bn.")


def teacher_values(shapes: Shapes, prefix: str, num_heads: int | None, source: Path) -> dict[str, Any]:
    """Sizes of a released teacher.

    Args:
        shapes: of the file's tensors.
        prefix: of the teacher's names, such as ``encoder.``.
        num_heads: None: those of releases of its width.
        source: the file.

    Raises:
        ValueError: naming the tensors that would tell a size and are missing, or that the heads must be given.
    """
    patch, window, positions, inner = _required(
        shapes,
        source,
        (f"{prefix}patch_embed.proj.weight", 4),
        (f"{prefix}front_end.0.spectrogram.window", 1),
        (f"{prefix}time_pos_embed", 4),
        (f"{prefix}blocks.0.mlp.fc1.weight", 2),
    )
    size = patch[0]
    heads = RELEASED_HEADS.get(size) if num_heads is None else num_heads
    if heads is None:
        raise ValueError(
            f"{source}: no tensor tells how many heads a teacher of width {size} has: give num_heads, as its authors "
            "say it"
        )
    return {
        "size": size,
        "num_layers": _count(shapes, rf"{re.escape(prefix)}blocks\.(\d+)\."),
        "num_heads": heads,
        "mlp_size": inner[0],
        "num_mels": patch[2],
        "n_fft": window[0],
        "piece_tokens": positions[3],
        "has_layer_scale": f"{prefix}blocks.0.ls1.gamma" in shapes,
    }


def bottleneck_values(shapes: Shapes, prefix: str, source: Path) -> dict[str, int]:
    """Sizes of a released bottleneck, whose names begin with ``prefix``.

    Raises:
        ValueError: as `teacher_values`.
    """
    first, second = _required(shapes, source, (f"{prefix}downsample.0.weight", 2), (f"{prefix}downsample.2.weight", 2))
    return {"feature_size": first[1], "bottleneck_size": first[0], "latent_size": second[0]}


def whole_values(shapes: Shapes, source: Path) -> dict[str, int]:
    """Sizes of a released LoSATok, but for its teacher.

    Raises:
        ValueError: as `teacher_values`.
    """
    decoder = "dasheng_tokenizer.decoder."
    patch, window, upsampler, embed, inner, out = _required(
        shapes,
        source,
        ("dasheng_tokenizer.encoder.patch_embed.weight", 4),
        ("dasheng_tokenizer.encoder.front_end.mel_spec.spectrogram.window", 1),
        ("dasheng_tokenizer.upsampler.weight", 3),
        (f"{decoder}backbone.embed.weight", 3),
        (f"{decoder}backbone.convnext.0.pwconv1.weight", 2),
        (f"{decoder}head.out.weight", 2),
    )
    return bottleneck_values(shapes, "semantic_encoder.bottleneck.", source) | {
        "num_mels": patch[2],
        "mel_n_fft": window[0],
        "decoder_size": embed[0],
        "decoder_intermediate_size": inner[0],
        "decoder_layers": _count(shapes, rf"{re.escape(decoder)}backbone\.convnext\.(\d+)\."),
        "n_fft": out[0] - 2,
        "upsampling": upsampler[2],
    }


def _required(shapes: Shapes, source: Path, *wanted: tuple[str, int]) -> list[Sequence[int]]:
    """Shapes of the tensors that tell sizes, by their names and numbers of dimensions."""
    missing = sorted({name for name, _ in wanted} - shapes.keys())
    if missing:
        raise ValueError(f"{source} holds half a LoSATok at most; missing: {', '.join(missing)}")
    wrong = [f"{name} {list(shapes[name])}" for name, count in wanted if len(shapes[name]) != count]
    if wrong:
        raise ValueError(f"{source} holds tensors of which no size can be read: {', '.join(wrong)}")
    return [shapes[name] for name, _ in wanted]


def _count(shapes: Shapes, pattern: str) -> int:
    return 1 + max((int(match[1]) for match in (re.match(pattern, name) for name in shapes) if match), default=-1)
