"""Mimi (Défossez et al., 2024, arXiv:2410.00037) through transformers: causal, and computed piece by piece.

A clip of any length is computed in pieces that carry on where the one before ended, so its memory is that of a piece,
no cut is heard, and a stream gives what the whole clip gives.
"""
# Shapes: B clips, K codebooks, T frames, H frames at the rate of the transformer, N samples.

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, MimiModel, PreTrainedModel

from audiollm.tokenizer.encoder.encoding import in_evaluation
from audiollm.tokenizer.zoo.codec import SEGMENT_SECONDS
from audiollm.tokenizer.zoo.streams import whole_pieces

from .wrapper import TransformersCodec

MOST_FRAMES = 1500
"""Of a piece, whatever their rate: the attention holds a number for every pair of steps."""
_STREAMED_PADDING = ("constant", "replicate")
"""Kinds of padding in front of a clip that need nothing of what comes later."""
_RENAMED = {
    "encoder.encoder_seanet.": "encoder.",
    "encoder.encoder_transformer.": "encoder_transformer.",
    "encoder.downsample.": "downsample.",
}
"""Names of newer versions of transformers, and those of the files and of the older ones."""


class Mimi(TransformersCodec):
    """Mimi."""

    kind_name = "mimi"
    model_class = MimiModel
    decoder_parts = ("decoder", "decoder_transformer", "upsample")
    deciding = (
        "upsampling_ratios", "use_causal_conv", "pad_mode", "dilation_growth_rate", "use_conv_shortcut",
        "num_semantic_quantizers", "num_attention_heads", "num_key_value_heads", "hidden_act", "norm_eps",
        "rope_parameters", "sliding_window",
    )  # fmt: skip

    def __init__(self, codec: PreTrainedModel, *, num_codebooks: int | None = None) -> None:
        config = codec.config
        if config.audio_channels != 1:
            raise ValueError(f"this Mimi has audio_channels={config.audio_channels}: only mono is computed")
        if not config.use_causal_conv or config.pad_mode not in _STREAMED_PADDING:
            raise ValueError(
                f"this Mimi has use_causal_conv={config.use_causal_conv} and pad_mode={config.pad_mode!r}: "
                f"only causal ones with pad_mode {' or '.join(_STREAMED_PADDING)} are computed, as the released one is"
            )
        self.before_float32 = "encoder.downsample" if hasattr(codec.encoder, "downsample") else "downsample"
        if codec.get_submodule(self.before_float32) is None:
            raise ValueError("this Mimi has no downsampling behind its encoder, which transformers needs")
        self.behind_float32 = "decoder.upsample" if hasattr(codec.decoder, "upsample") else "upsample"
        super().__init__(codec, num_codebooks=num_codebooks)

    # ------------------------------------------------------------------- facts

    @property
    def max_codebooks(self) -> int:
        return int(self.config.num_quantizers)

    @property
    def min_codebooks(self) -> int:
        return int(self.config.num_semantic_quantizers)

    @property
    def frame_samples(self) -> int:
        downsampling = self.codec.get_submodule(self.before_float32)
        return math.prod(self.config.upsampling_ratios) * int(downsampling.conv.stride[0])

    @property
    def is_causal(self) -> bool:
        return True

    @property
    def max_segment_seconds(self) -> float | None:
        return None

    @property
    def _segment_samples(self) -> int:
        return sys.maxsize // self.frame_samples * self.frame_samples

    def lasting_name(self, name: str) -> str:
        for new, lasting in _RENAMED.items():
            if name.startswith(new):
                return lasting + name.removeprefix(new)
        return name

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        made = super()._apply(fn, recurse)
        for module in self.codec.quantizer.modules():
            if hasattr(module, "_embed"):  # entries that transformers made of the buffers where they were before
                module._embed = None
        return made

    # ----------------------------------------------------------------- batches

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        encoder = StreamEncoder(self)
        return torch.cat([encoder.encode(part) for part in waveforms_BN.split(self._piece_samples, dim=1)], dim=-1)

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        decoder = StreamDecoder(self)
        parts = codes_BKT.split(self._piece_samples // self.frame_samples, dim=-1)
        return torch.cat([decoder.decode(part) for part in parts], dim=-1)

    @property
    def _piece_samples(self) -> int:
        """Samples computed at once: whole frames."""
        frames = min(round(SEGMENT_SECONDS * self.sample_rate / self.frame_samples), MOST_FRAMES)
        return max(1, frames) * self.frame_samples

    # ----------------------------------------------------------------- streams

    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Encodes a stream of any length in constant memory; the codes are those of `encode` of the whole.

        Args:
            chunks: consecutive pieces of one waveform, float ``[N_i]``, of any lengths.
            sample_rate: their rate in Hz.

        Yields:
            int64 codes on the CPU, ``[K, T]``, or ``[T]`` where one codebook is used: as soon as a frame is whole.

        Raises:
            ValueError: as `encode`, when the stream comes to the bad chunk.
        """
        encoder = StreamEncoder(in_evaluation(self))
        for piece in whole_pieces(chunks, sample_rate, self.sample_rate, self._piece_samples, self.frame_samples):
            filled = F.pad(piece, (0, -len(piece) % self.frame_samples))
            with torch.no_grad():
                codes_KT = encoder.encode(filled[None].to(self.device))[0].cpu().to(torch.int64)
            yield codes_KT if self.num_codebooks > 1 else codes_KT[0]

    def decode_stream(
        self, codes: Iterable[Tensor], speaker: Tensor | None = None, prompt: Any = None
    ) -> Iterator[Tensor]:
        """Decodes a stream of codes in constant memory; the samples are those of `decode` of the whole.

        Args:
            codes: consecutive codes of one clip, int64 ``[K, T_i]``, or ``[T_i]`` where one codebook is used.
            speaker: None.
            prompt: None.

        Yields:
            float32 ``[N]`` on the CPU, at `output_sample_rate`: all that the codes so far decide, a frame per code.

        Raises:
            ValueError: if it has no decoder, or for a speaker or prompt; as `decode`, when the stream comes to the bad
                codes.
        """
        for name, value in (("speaker", speaker), ("prompt", prompt)):
            if value is not None:
                raise ValueError(f"{name}: the decoder of Mimi takes none; leave it out")
        if not self.can_decode:
            raise ValueError("this Mimi cannot decode: it was loaded without its decoder")
        return self._decode_parts(codes)

    def _decode_parts(self, codes: Iterable[Tensor]) -> Iterator[Tensor]:
        decoder = StreamDecoder(in_evaluation(self))
        longest = self._piece_samples // self.frame_samples
        for part in codes:
            (clip,) = self.clips_of([part])
            for piece in clip.split(longest, dim=1) if clip.shape[1] else ():
                with torch.no_grad():
                    yield decoder.decode(piece[None].to(self.device))[0].float().cpu()


class StreamEncoder:
    """Encodes pieces of equally long waveforms, each of whole frames, with what transformers keeps of those before."""

    def __init__(self, tokenizer: Mimi) -> None:
        self.tokenizer = tokenizer
        self._caches: dict[str, Any] = {}

    def encode(self, waveforms_BN: Tensor) -> Tensor:
        """The codes of the next piece, ``[B, K, T]``."""
        tokenizer = self.tokenizer
        encoded = tokenizer.codec.encode(
            waveforms_BN[:, None].to(tokenizer.dtype),
            num_quantizers=tokenizer.num_codebooks,
            use_streaming=True,
            return_dict=True,
            **self._caches,
        )
        self._caches = {
            "encoder_past_key_values": encoded.encoder_past_key_values,
            "padding_cache": encoded.padding_cache,
        }
        codes_BKT: Tensor = encoded.audio_codes
        return codes_BKT


class StreamDecoder:
    """Decodes pieces of equally long rows of codes.

    transformers keeps the past of the transformer alone; its convolutions get as many of their last inputs once more as
    they reach back, and what these give is cut off.
    """

    def __init__(self, tokenizer: Mimi) -> None:
        codec = tokenizer.codec
        newer = hasattr(codec.decoder, "decoder_seanet")
        self.quantizer = codec.quantizer
        self.upsample, self.transformer = (codec.decoder.upsample, codec.decoder.decoder_transformer) if newer else (
            codec.upsample, codec.decoder_transformer,
        )  # fmt: skip
        self.convolutions = codec.decoder.decoder_seanet if newer else codec.decoder
        self._past = DynamicCache(config=codec.config)
        self._latents = Overlapping(self.upsample)
        self._hidden = Overlapping(self.convolutions)

    def decode(self, codes_BKT: Tensor) -> Tensor:
        """The samples of the next piece, ``[B, N]``."""
        upsampled_BDH = self._latents(self.quantizer.decode(codes_BKT))
        hidden_BHD = self.transformer(
            upsampled_BDH.transpose(1, 2), past_key_values=self._past, use_cache=True, return_dict=True
        ).last_hidden_state
        return self._hidden(hidden_BHD.transpose(1, 2))[:, 0]


class Overlapping:
    """Computes causal convolutions piece by piece.

    Args:
        module: of convolutions in a row, plain and transposed, which see nothing that comes later.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.context, self.factor = reach(module)
        self._past: Tensor | None = None

    def __call__(self, inputs_BDH: Tensor) -> Tensor:
        """The outputs of the next inputs, ``[B, D', H · factor]``."""
        with_past = inputs_BDH if self._past is None else torch.cat([self._past, inputs_BDH], dim=-1)
        num_before = with_past.shape[-1] - inputs_BDH.shape[-1]
        self._past = with_past[..., max(0, with_past.shape[-1] - self.context) :]
        made: Tensor = self.module(with_past)
        return made[..., num_before * self.factor :]


def reach(module: nn.Module) -> tuple[int, int]:
    """How many inputs before its own an output depends on at most, and how many outputs an input becomes."""
    back, factor = 0.0, 1
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose1d):
            back += (math.ceil(layer.kernel_size[0] / layer.stride[0]) - 1) / factor
            factor *= layer.stride[0]
        elif isinstance(layer, nn.Conv1d):
            back += (layer.kernel_size[0] - 1) * layer.dilation[0] / factor
    return math.ceil(back) + 1, factor
