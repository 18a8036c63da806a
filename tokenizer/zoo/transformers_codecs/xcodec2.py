"""X-Codec2 (Ye et al., 2025, arXiv:2502.04128) through transformers: one codebook, of a waveform and its filterbank."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, SeamlessM4TFeatureExtractor, Xcodec2Model

from .wrapper import TransformersCodec

STRIDE = 2
"""Frames of the filterbank that the semantic encoder takes at once."""
SEGMENT_SECONDS = 20.0
"""Longest clip computed whole: the semantic encoder holds a vector for every pair of frames."""


class XCodec2(TransformersCodec):
    """X-Codec2: what its semantic encoder hears, a filterbank of the waveform, is computed here.

    As the released feature extractor has it, half a frame of silence stands on both sides of the clip for the
    filterbank. That one fills a clip of whole frames with a further one, which gives no code; here there is none.
    """

    kind_name = "xcodec2"
    model_class = Xcodec2Model
    decoder_parts = ("acoustic_decoder",)
    float32_part = None  # the codes are computed in float32 by transformers
    deciding = (
        "downsampling_ratios", "quantization_levels",
        *(
            f"semantic_model_config.{key}" for key in (
                "model_type", "num_attention_heads", "hidden_act", "layer_norm_eps", "position_embeddings_type",
                "left_max_position_embeddings", "right_max_position_embeddings", "conv_depthwise_kernel_size",
            )
        ),
    )  # fmt: skip

    def __init__(self, codec: PreTrainedModel, *, num_codebooks: int | None = None) -> None:
        super().__init__(codec, num_codebooks=num_codebooks)
        num_mel_bins = self.config.semantic_model_config.feature_projection_input_dim // STRIDE
        self._filterbank = SeamlessM4TFeatureExtractor(
            feature_size=num_mel_bins, num_mel_bins=num_mel_bins, sampling_rate=self.sample_rate, stride=STRIDE
        )

    @property
    def max_codebooks(self) -> int:
        return 1

    @property
    def codebook_size(self) -> int:
        return math.prod(self.config.quantization_levels)

    @property
    def frame_samples(self) -> int:
        return math.prod(self.config.downsampling_ratios)

    @property
    def max_segment_seconds(self) -> float | None:
        return SEGMENT_SECONDS

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        codes_BKT: Tensor = self.codec.encode(
            waveforms_BN[:, None].to(self.dtype), self.input_features(waveforms_BN), return_dict=True
        ).audio_codes
        return codes_BKT

    def input_features(self, waveforms_BN: Tensor) -> Tensor:
        """The filterbank of equally long clips, two of its frames per frame, ``[B, T, 2 · bins]``."""
        padded_BN = F.pad(waveforms_BN.float().cpu(), (self.frame_samples // 2,) * 2)
        features = self._filterbank(
            list(padded_BN.numpy()), sampling_rate=self.sample_rate, return_attention_mask=False, return_tensors="pt"
        )
        filtered: Tensor = features["input_features"]
        return filtered.to(self.device, self.dtype)

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        decoded: Tensor = self.codec.decode(codes_BKT, return_dict=True).audio_values
        return decoded[:, 0]
