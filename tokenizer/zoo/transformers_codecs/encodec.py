"""EnCodec (Défossez et al., 2022, arXiv:2210.13438) through transformers: mono, one network over the whole clip."""

from __future__ import annotations

import math

from torch import Tensor
from transformers import EncodecModel, PreTrainedModel

from .wrapper import TransformersCodec


class EnCodec(TransformersCodec):
    """EnCodec; the stereo model of 48 kHz is refused, see `refusal`."""

    kind_name = "encodec"
    model_class = EncodecModel
    decoder_parts = ("decoder",)
    before_float32 = "encoder"
    behind_float32 = "decoder"
    deciding = (
        "upsampling_ratios", "use_causal_conv", "pad_mode", "norm_type", "dilation_growth_rate", "use_conv_shortcut",
    )  # fmt: skip

    def __init__(self, codec: PreTrainedModel, *, num_codebooks: int | None = None) -> None:
        reason = refusal(codec)
        if reason:
            raise ValueError(reason)
        super().__init__(codec, num_codebooks=num_codebooks)

    @property
    def max_codebooks(self) -> int:
        quantizer = self.codec.quantizer
        wanted = quantizer.get_num_quantizers_for_bandwidth(self.config.target_bandwidths[-1])
        return min(int(wanted), len(quantizer.layers))

    @property
    def frame_samples(self) -> int:
        return math.prod(self.config.upsampling_ratios)

    @property
    def is_causal(self) -> bool:
        """Causal convolutions; but reflected at the start of a clip, its first frames see a few that come next."""
        return bool(self.config.use_causal_conv) and self.config.pad_mode != "reflect"

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        # The least bandwidth with enough codebooks; those behind the ones that are used are cut off.
        rates = self.config.target_bandwidths
        quantizer = self.codec.quantizer
        rate = next(r for r in rates if quantizer.get_num_quantizers_for_bandwidth(r) >= self.num_codebooks)
        encoded = self.codec.encode(waveforms_BN[:, None].to(self.dtype), bandwidth=rate, return_dict=True)
        codes_BKT: Tensor = encoded.audio_codes[0]
        return codes_BKT[:, : self.num_codebooks]

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        decoded: Tensor = self.codec.decode(codes_BKT[None], [None], return_dict=True).audio_values
        return decoded[:, 0]


def refusal(codec: PreTrainedModel) -> str | None:
    """Why an EnCodec can't be used; None if it can."""
    config = codec.config
    wrong = [f"audio_channels={config.audio_channels}"] if config.audio_channels != 1 else []
    wrong += ["normalize=true"] if config.normalize else []
    wrong += [f"chunk_length_s={config.chunk_length_s}"] if config.chunk_length_s is not None else []
    if not wrong:
        return None
    return (
        f"this EnCodec has {', '.join(wrong)}, as the stereo model of 48 kHz: it keeps the loudness of each second "
        "beside the codes, and without that the codes make no sound of the right loudness; use one of 24 kHz such as "
        "facebook/encodec_24khz"
    )
