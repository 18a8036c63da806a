"""Sizes of an SQCodec, and the YAML that a release keeps them in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audiollm.tokenizer.signal.resampling import check_sample_rate
from audiollm.tokenizer.zoo.settings import require_few, require_some

NUM_LEVELS = 19
"""Values that each number of a latent can have: -9/9, -8/9 … 9/9."""


@dataclass(frozen=True, kw_only=True)
class SQCodecConfig:
    """Sizes, by the keys of the released YAML."""

    sample_rate: int
    """Hz."""
    num_samples: int
    """Samples that are averaged behind the first layers, and repeated before the last; 1: none are."""
    downsample_factors: tuple[int, ...]
    """From the waveform to the latents."""
    downsample_kernel_sizes: tuple[int, ...]
    upsample_factors: tuple[int, ...]
    """From the latents to the waveform."""
    upsample_kernel_sizes: tuple[int, ...]
    latent_hidden_dim: int
    """D: numbers of a frame, each of which has a code."""
    init_channel: int
    """Channels beside the waveform; each factor doubles them."""
    default_kernel_size: int = 7
    delay_kernel_size: int = 5
    """Of the decoder's first layer, which looks ahead in any case."""
    res_kernel_size: int = 7
    causal: bool = True
    num_bands: int = 1
    encoder_only: bool = False
    """Ours: whether there is no decoder."""

    def __post_init__(self) -> None:
        require_some(
            self, "num_samples", "latent_hidden_dim", "init_channel", "default_kernel_size", "delay_kernel_size",
            "res_kernel_size",
        )  # fmt: skip
        require_few(self, "num_samples")
        check_sample_rate(self.sample_rate)
        if self.num_bands != 1:
            raise ValueError(f"num_bands={self.num_bands}: only codecs of the whole band, num_bands=1, are supported")
        for way in ("down", "up"):
            factors, kernels = getattr(self, f"{way}sample_factors"), getattr(self, f"{way}sample_kernel_sizes")
            if len(factors) != len(kernels):
                raise ValueError(f"{len(factors)} {way}sample_factors need as many {way}sample_kernel_sizes")
            if any(kernel < factor for kernel, factor in zip(kernels, factors, strict=True)):
                raise ValueError(f"{way}sample_kernel_sizes={list(kernels)}: none may be below its factor")
        if len(self.downsample_factors) > 16:
            raise ValueError(f"{len(self.downsample_factors)} downsample_factors: give 16 or fewer")
        if math.prod(self.downsample_factors) != math.prod(self.upsample_factors):
            raise ValueError("the upsample_factors do not undo the downsample_factors: make their products equal")

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return self.num_samples * math.prod(self.downsample_factors)


def yaml_values(path: Path) -> dict[str, Any]:
    """What a release's YAML says of the fields of `SQCodecConfig`.

    Raises:
        ValueError: if it is no YAML, or not that of an SQCodec.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    for key in ("generator", "config"):
        values = values.get(key) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not the YAML of an SQCodec: it has no generator.config")
    return values
