"""`SQCodec`: waveforms to latents in (-1, 1), each number rounded to one of 19 levels, and back."""
# Shapes: B clips, K codes of a frame, T frames, N samples, D latent size (K = D).

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS, kind_named
from audiollm.tokenizer.layers.seanet import old_weight_norm
from audiollm.tokenizer.quantizer.fsq import round_to_levels
from audiollm.tokenizer.zoo.codec import CodecTokenizer, own_settings
from audiollm.tokenizer.zoo.settings import settings_as

from .configuration import NUM_LEVELS, SQCodecConfig, yaml_values
from .layers import Conv, Downsample, Pooled, Repeated, Upsample

RELEASED, RELEASED_CONFIG = "sqcodec.pth", "sqcodec_config.yaml"
UNDER = "codec_model"
"""Name under which the released file keeps the tensors."""
_STEPS = NUM_LEVELS // 2


class SQCodec(CodecTokenizer):
    """Codes are the levels of the numbers of a frame: as many codebooks as a latent has numbers, all alike.

    Its latents are what a ReasoningCodec's decoder makes, so that both are there as floats too: `latents`, `sound`.
    """

    kind_name = "sqcodec"
    decoding = ("decoder.",)

    def __init__(self, config: SQCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.decoder = None if config.encoder_only else _decoder(config)

    # ------------------------------------------------------------------- facts

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def frame_samples(self) -> int:
        return self.config.frame_samples

    @property
    def num_codebooks(self) -> int:
        return self.config.latent_hidden_dim

    @property
    def codebook_size(self) -> int:
        return NUM_LEVELS

    @property
    def is_causal(self) -> bool:
        return self.config.causal

    @property
    def can_decode(self) -> bool:
        return self.decoder is not None

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    def deciding_settings(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.settings().items()
            if not name.startswith("upsample") and name not in ("encoder_only", "delay_kernel_size")
        }

    # ------------------------------------------------------------------ encode

    def latents(self, waveforms_BN: Tensor) -> Tensor:
        """What is rounded, of equally long waveforms of whole frames: ``[B, D, T]`` in (-1, 1)."""
        hidden_BDT: Tensor = self.encoder(waveforms_BN[:, None].to(self.dtype))
        return hidden_BDT.tanh()

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        return self.encode_batch_with_features(waveforms_BN)[0]

    def encode_batch_with_features(self, waveforms_BN: Tensor) -> tuple[Tensor, Tensor]:
        latents_BDT = self.latents(waveforms_BN).float()
        return self.codes_of(latents_BDT), latents_BDT.transpose(1, 2)

    def codes_of(self, latents_BDT: Tensor) -> Tensor:
        """The level of each number, int64 in [0, 19), ``[B, K, T]``; numbers outside [-1, 1] get the outermost."""
        return (latents_BDT.float().clamp(-1, 1) * _STEPS).round().long() + _STEPS

    # ------------------------------------------------------------------ decode

    def sound(self, latents_BDT: Tensor) -> Tensor:
        """Waveforms ``[B, N]`` of latents ``[B, D, T]``, which are rounded first; gradients pass straight through.

        Raises:
            ValueError: if there is no decoder.
        """
        if self.decoder is None:
            raise ValueError("this SQCodec cannot decode: it was loaded without its decoder")
        waveforms_B1N: Tensor = self.decoder(round_to_levels(latents_BDT, _STEPS).to(self.dtype))
        return waveforms_B1N[:, 0]

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        waveforms_BN = self.sound((codes_BKT - _STEPS).float() / _STEPS)
        # Of an odd factor, a stride that looks both ways makes a sample too many.
        return waveforms_BN[:, : codes_BKT.shape[2] * self.frame_samples]

    def forward(self, waveforms_BN: Tensor) -> Tensor:
        """To rounded latents and back, as it is trained: ``[B, N]``."""
        return self.sound(self.latents(waveforms_BN))

    # ------------------------------------------------------------------- files

    def released_names(self) -> dict[str, str]:
        return {name: old_weight_norm(name) for name in self.weights()}

    @classmethod
    def read(cls, folder: Path, *, encoder_only: bool = False) -> SQCodec:
        own = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        is_own = own.get("model_type") == kind_named(cls.kind_name).own_model_type
        path = folder / (WEIGHTS if is_own else RELEASED)
        config = settings_as(SQCodecConfig, own_settings(own), folder / CONFIG) if is_own else _released_config(folder)
        if encoder_only:
            config = dataclasses.replace(config, encoder_only=True)

        def keep(name: str) -> bool:
            return not (config.encoder_only and name.startswith(cls.decoding))

        form: dict[str, Any] = {} if is_own else {"released": True, "under": UNDER, "spelling": old_weight_norm}
        return cls.filled(partial(cls, config), path, keep=keep, **form)


def _released_config(folder: Path) -> SQCodecConfig:
    path = folder / RELEASED_CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} holds no {RELEASED_CONFIG}: put the one that {RELEASED} was released with there")
    return settings_as(SQCodecConfig, yaml_values(path), path, may_hold_more=True)


def _encoder(config: SQCodecConfig) -> nn.Sequential:
    """Waveforms ``[B, 1, N]`` to what the latents are the hyperbolic tangent of, ``[B, D, T]``."""
    kernel, causal, num_channels = config.default_kernel_size, config.causal, config.init_channel
    layers: list[nn.Module] = [weight_norm(Conv(1, num_channels, kernel, is_causal=causal))]
    if config.num_samples > 1:
        layers.append(Pooled(num_channels, kernel, config.num_samples, causal))
    for factor, size in zip(config.downsample_factors, config.downsample_kernel_sizes, strict=True):
        layers.append(Downsample(num_channels, factor, size, config.res_kernel_size, causal))
        num_channels *= 2
    layers.append(weight_norm(Conv(num_channels, config.latent_hidden_dim, kernel, is_causal=causal)))
    return nn.Sequential(*layers)


def _decoder(config: SQCodecConfig) -> nn.Sequential:
    """Rounded latents ``[B, D, T]`` to waveforms ``[B, 1, N]``."""
    kernel, causal = config.default_kernel_size, config.causal
    num_channels = config.init_channel * 2 ** len(config.upsample_factors)
    # Never causal: it looks ahead, so that what follows need not.
    layers: list[nn.Module] = [weight_norm(Conv(config.latent_hidden_dim, num_channels, config.delay_kernel_size))]
    for factor, size in zip(config.upsample_factors, config.upsample_kernel_sizes, strict=True):
        num_channels //= 2
        layers.append(Upsample(num_channels, factor, size, config.res_kernel_size, causal))
    if config.num_samples > 1:
        layers.append(Repeated(num_channels, kernel, config.num_samples, causal))
    layers.append(weight_norm(Conv(num_channels, 1, kernel, is_causal=causal)))
    return nn.Sequential(*layers)
