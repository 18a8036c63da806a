"""Sizes of a WavTokenizer: from our own config, or from a release's YAML and the shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audiollm.tokenizer.layers.seanet import SeanetSizes
from audiollm.tokenizer.signal.resampling import check_sample_rate
from audiollm.tokenizer.zoo.settings import require_few, require_some

Shapes = Mapping[str, Sequence[int]]

SAMPLE_RATE = 24000
"""Hz, of all releases; no tensor tells it."""
CODEC = "feature_extractor.encodec."
"""How the names of a release's encoder and quantizer begin."""

# Where a release's YAML has what: keys below model.init_args, and the field.
_YAML_FIELDS = {
    "sample_rate": "sample_rate",
    "feature_extractor.init_args.dowmsamples": "strides",  # its spelling
    "feature_extractor.init_args.vq_bins": "codebook_size",
    "feature_extractor.init_args.num_quantizers": "num_codebooks",
    "backbone.init_args.input_channels": "feature_size",
    "backbone.init_args.dim": "size",
    "backbone.init_args.intermediate_dim": "intermediate_size",
    "backbone.init_args.num_layers": "num_layers",
    "backbone.init_args.adanorm_num_embeddings": "num_conditions",
    "head.init_args.n_fft": "n_fft",
    "head.init_args.hop_length": "hop_length",
    "head.init_args.padding": "padding",
}


@dataclass(frozen=True, kw_only=True)
class WavTokenizerConfig:
    """Everything that makes the model."""

    num_filters: int
    """Channels of the encoder beside the waveform."""
    strides: tuple[int, ...]
    """From the features to the waveform; their product is the samples of a frame."""
    feature_size: int
    codebook_size: int
    size: int
    """Channels of the decoder."""
    intermediate_size: int
    num_layers: int
    """ConvNeXt blocks."""
    n_fft: int
    hop_length: int
    num_codebooks: int = 1
    num_lstm_layers: int = 2
    num_conditions: int | None = 4
    """Bandwidths that the decoder's norms tell apart; None: plain norms."""
    has_position_net: bool = True
    padding: str = "same"
    sample_rate: int = SAMPLE_RATE
    """Hz."""
    encoder_only: bool = False
    """Whether there is no decoder."""

    def __post_init__(self) -> None:
        require_some(
            self, "num_filters", "feature_size", "codebook_size", "num_codebooks", "size", "num_layers", "sample_rate"
        )
        require_few(self, "num_codebooks", "num_layers", "num_lstm_layers")
        check_sample_rate(self.sample_rate)
        if self.hop_length != math.prod(self.strides):
            raise ValueError(
                f"hop_length={self.hop_length}, but a frame of strides {list(self.strides)} has "
                f"{math.prod(self.strides)} samples: what is decoded would not be as long as what was encoded"
            )

    @property
    def seanet(self) -> SeanetSizes:
        """Of the encoder."""
        return SeanetSizes(
            num_filters=self.num_filters,
            strides=self.strides,
            feature_size=self.feature_size,
            num_lstm_layers=self.num_lstm_layers,
        )


def yaml_values(path: Path) -> dict[str, Any]:
    """What a release's YAML says of the fields of `WavTokenizerConfig`; those that it lacks are left out.

    Raises:
        ValueError: if it is no YAML, or not that of a WavTokenizer.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    model = _below(_below(values, "model"), "init_args")
    if not isinstance(model, dict):
        raise ValueError(f"{path} is not the YAML of a WavTokenizer: it has no model.init_args")
    found = {}
    for key, field in _YAML_FIELDS.items():
        value: Any = model
        for part in key.split("."):
            value = _below(value, part)
        if value is not None:
            found[field] = value
    return found


def _below(values: Any, key: str) -> Any:
    return values.get(key) if isinstance(values, dict) else None


def shape_values(shapes: Shapes, source: Path) -> dict[str, Any]:
    """What a release's tensors, named in the older spelling of weight norm, say of the same fields.

    Raises:
        ValueError: naming the tensors that would tell a size and are missing.
    """
    encoder, quantizer = f"{CODEC}encoder.model.", f"{CODEC}quantizer.vq.layers."
    convolutions = sorted(_indices(shapes, rf"{re.escape(encoder)}(\d+)\.conv\.conv\.weight_v"))
    blocks = _indices(shapes, r"backbone\.convnext\.(\d+)\.")
    needed = {
        "first": f"{encoder}0.conv.conv.weight_v",
        "last": f"{encoder}{max(convolutions, default=15)}.conv.conv.weight_v",
        "entries": f"{quantizer}0._codebook.embed",
        "embed": "backbone.embed.weight",
        "inner": f"backbone.convnext.{min(blocks, default=0)}.pwconv1.weight",
        "out": "head.out.weight",
    }
    missing = sorted(set(needed.values()) - shapes.keys())
    if missing:
        raise ValueError(f"{source} holds half a WavTokenizer at most; missing: {', '.join(missing)}")
    strides = [shapes[f"{encoder}{number}.conv.conv.weight_v"][2] // 2 for number in convolutions[1:-1]]
    conditions = [shape[0] for name, shape in shapes.items() if re.match(r"backbone\..*norm\.scale\.weight$", name)]
    return {
        "num_filters": shapes[needed["first"]][0],
        "strides": strides[::-1],
        "feature_size": shapes[needed["last"]][0],
        "num_lstm_layers": 1 + max(_indices(shapes, rf"{re.escape(encoder)}\d+\.lstm\.weight_ih_l(\d+)"), default=-1),
        "codebook_size": shapes[needed["entries"]][0],
        "num_codebooks": 1 + max(_indices(shapes, rf"{re.escape(quantizer)}(\d+)\.")),
        "size": shapes[needed["embed"]][0],
        "intermediate_size": shapes[needed["inner"]][0],
        "num_layers": 1 + max(blocks),
        "num_conditions": conditions[0] if conditions else None,
        "has_position_net": any(name.startswith("backbone.pos_net.") for name in shapes),
        "n_fft": shapes[needed["out"]][0] - 2,
        "hop_length": math.prod(strides),
    }


def _indices(shapes: Shapes, pattern: str) -> set[int]:
    """The numbers that the group of a pattern finds at the beginning of names."""
    return {int(match[1]) for match in (re.match(pattern, name) for name in shapes) if match}
