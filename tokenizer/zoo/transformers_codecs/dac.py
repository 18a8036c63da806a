"""DAC (Kumar et al., 2023, arXiv:2306.06546) through transformers."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from transformers import DacModel

from .wrapper import TransformersCodec


class DAC(TransformersCodec):
    """DAC; clips are filled up to whole frames, without which transformers' model fails on short ones."""

    kind_name = "dac"
    model_class = DacModel
    decoder_parts = ("decoder",)
    before_float32 = "encoder"
    behind_float32 = "decoder"
    deciding = ("downsampling_ratios",)

    @property
    def max_codebooks(self) -> int:
        return int(self.config.n_codebooks)

    @property
    def frame_samples(self) -> int:
        return math.prod(self.config.downsampling_ratios)

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        codes_BKT: Tensor = self.codec.encode(
            waveforms_BN[:, None].to(self.dtype), n_quantizers=self.num_codebooks, return_dict=True
        ).audio_codes
        return codes_BKT

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        decoded: Tensor = self.codec.decode(audio_codes=codes_BKT, return_dict=True).audio_values
        wanted = codes_BKT.shape[-1] * self.frame_samples
        return F.pad(decoded, (0, wanted - decoded.shape[-1]))  # odd strides leave some samples out at the end
