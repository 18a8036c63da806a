"""X-Codec (Ye et al., 2024, arXiv:2408.17175) through transformers: a DAC beside a HuBERT or WavLM."""

from __future__ import annotations

import math

from torch import Tensor
from transformers import XcodecModel

from .wrapper import TransformersCodec


class XCodec(TransformersCodec):
    """X-Codec."""

    kind_name = "xcodec"
    model_class = XcodecModel
    decoder_parts = ("acoustic_decoder", "fc2", "decoder_semantic", "fc1")
    before_float32 = "fc"
    behind_float32 = "fc2"
    deciding = (
        "acoustic_model_config.downsampling_ratios", "strides", "block_dilations", "channel_ratios",
        *(
            f"semantic_model_config.{key}" for key in (
                "model_type", "num_attention_heads", "hidden_act", "layer_norm_eps", "do_stable_layer_norm",
                "feat_extract_norm", "feat_extract_activation", "conv_stride", "num_conv_pos_embedding_groups",
            )
        ),
    )  # fmt: skip

    @property
    def sample_rate(self) -> int:
        return int(self.config.sample_rate)

    @property
    def max_codebooks(self) -> int:
        quantizer = self.codec.quantizer
        wanted = quantizer.get_num_quantizers_for_bandwidth(self.config.target_bandwidths[-1])
        return min(int(wanted), len(quantizer.quantizers))

    @property
    def frame_samples(self) -> int:
        return math.prod(self.config.acoustic_model_config.downsampling_ratios)

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        # The least bandwidth with enough codebooks; those behind the ones that are used are cut off.
        quantizer = self.codec.quantizer
        rate = next(
            rate
            for rate in self.config.target_bandwidths
            if quantizer.get_num_quantizers_for_bandwidth(rate) >= self.num_codebooks
        )
        encoded = self.codec.encode(waveforms_BN[:, None].to(self.dtype), bandwidth=rate, return_dict=True)
        codes_BKT: Tensor = encoded.audio_codes
        return codes_BKT[:, : self.num_codebooks]

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        decoded: Tensor = self.codec.decode(codes_BKT, return_dict=True).audio_values
        return decoded[:, 0]
