"""SEANet (Tagliasacchi et al., 2020, arXiv:2009.02095): waveforms to features by strided convolutions, and back.

The layers are those of transformers' EnCodec. What EnCodec does not have, an LSTM in both directions and Snake in
place of ELU, is put in where it belongs.
"""
# Shapes: B clips, N samples, T frames, D feature size, C channels.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import EncodecConfig
from transformers.models.dac.modeling_dac import Snake1d
from transformers.models.encodec.modeling_encodec import (
    EncodecConv1d,
    EncodecConvTranspose1d,
    EncodecDecoder,
    EncodecEncoder,
    EncodecLSTM,
    EncodecResnetBlock,
)

ACTIVATIONS = ("ELU", "Snake")


@dataclass(frozen=True, kw_only=True)
class SeanetSizes:
    """What makes an encoder, and the decoder that is its mirror image.

    Attributes:
        num_filters: channels beside the waveform; each stride doubles them.
        strides: from the features to the waveform; their product is the samples of a frame.
        feature_size: D.
        num_residual_layers: residual blocks before each stride.
        residual_kernel_size: of the first convolution in such a block.
        dilation_base: growth of the dilation from block to block.
        num_lstm_layers: beside the features; 0: none.
        is_bidirectional: whether the encoder's LSTM also reads backwards, which doubles its channels.
        activation: one of `ACTIVATIONS`.
        is_causal: whether no frame depends on a sample behind it, but for the first few: a clip is reflected at its
            start.
    """

    num_filters: int
    strides: Sequence[int]
    feature_size: int
    num_residual_layers: int = 1
    residual_kernel_size: int = 3
    dilation_base: int = 2
    num_lstm_layers: int = 2
    is_bidirectional: bool = False
    activation: str = "ELU"
    is_causal: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r}: known are {', '.join(ACTIVATIONS)}")
        if not self.strides:
            raise ValueError("strides=[]: give one stride or more")

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return math.prod(self.strides)

    @property
    def encodec(self) -> EncodecConfig:
        """As transformers says it."""
        return EncodecConfig(
            hidden_size=self.feature_size,
            num_filters=self.num_filters,
            num_residual_layers=self.num_residual_layers,
            upsampling_ratios=list(self.strides),
            residual_kernel_size=self.residual_kernel_size,
            dilation_growth_rate=self.dilation_base,
            use_causal_conv=self.is_causal,
            norm_type="weight_norm",
            num_lstm_layers=max(1, self.num_lstm_layers),  # EnCodec always has some
        )


class BidirectionalLSTM(nn.Module):
    """As `EncodecLSTM`, in both directions: ``[B, C, T]`` to ``[B, 2 C, T]``, the input added to either half."""

    def __init__(self, num_channels: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_channels, num_channels, num_layers, bidirectional=True)

    def forward(self, features_BCT: Tensor) -> Tensor:
        rows_TBC = features_BCT.permute(2, 0, 1)
        read: Tensor = self.lstm(rows_TBC)[0] + rows_TBC.repeat(1, 1, 2)
        return read.permute(1, 2, 0)


class SeanetEncoder(EncodecEncoder):
    """Waveforms ``[B, 1, N]`` to features ``[B, D, ceil(N / frame_samples)]``."""

    def __init__(self, sizes: SeanetSizes) -> None:
        config = sizes.encodec
        super().__init__(config)
        if sizes.is_bidirectional and sizes.num_lstm_layers:
            place = _lstm_place(self.layers)
            num_channels = self.layers[place].lstm.hidden_size
            self.layers[place] = BidirectionalLSTM(num_channels, sizes.num_lstm_layers)
            self.layers[-1] = EncodecConv1d(config, 2 * num_channels, sizes.feature_size, config.last_kernel_size)
        _finish(self.layers, sizes)

    def forward(self, waveforms_B1N: Tensor) -> Tensor:
        return _run(self.layers, waveforms_B1N)

    def released_names(self) -> dict[str, str]:
        """As the function of this name."""
        return released_names(self.layers, self.state_dict())


class SeanetDecoder(EncodecDecoder):
    """Features ``[B, D, T]`` to waveforms ``[B, 1, T * frame_samples]``."""

    def __init__(self, sizes: SeanetSizes) -> None:
        super().__init__(sizes.encodec)
        _finish(self.layers, sizes)

    def forward(self, features_BDT: Tensor) -> Tensor:
        return _run(self.layers, features_BDT)

    def released_names(self) -> dict[str, str]:
        """As the function of this name."""
        return released_names(self.layers, self.state_dict())


def _run(layers: nn.ModuleList, rows: Tensor) -> Tensor:
    for layer in layers:
        rows = layer(rows)
    return rows


def _lstm_place(layers: nn.ModuleList) -> int:
    return next(index for index, layer in enumerate(layers) if isinstance(layer, EncodecLSTM))


def _finish(layers: nn.ModuleList, sizes: SeanetSizes) -> None:
    """Puts in what EnCodec has no option for, but for the LSTM that reads backwards."""
    if not sizes.num_lstm_layers:
        del layers[_lstm_place(layers)]
    if sizes.activation == "Snake":
        _put_snake(layers)
        for block in layers:
            if isinstance(block, EncodecResnetBlock):
                _put_snake(block.block)


def _put_snake(layers: nn.ModuleList) -> None:
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.ELU):
            following: Any = layers[index + 1]  # a convolution, always
            layers[index] = Snake1d(following.conv.in_channels)


def released_names(layers: nn.ModuleList, own: Sequence[str] | dict[str, Tensor]) -> dict[str, str]:
    """What EnCodec's own code, and all that was made with it, calls the weights; by our names, which are transformers'.

    Weight normalisation has its older spelling there, ``weight_g`` and ``weight_v``.

    Args:
        layers: of an encoder or decoder.
        own: names of its weights, which begin with ``layers.``.
    """
    return {name: _released_name(layers, name) for name in own}


def _released_name(layers: nn.ModuleList, name: str) -> str:
    _, index, rest = name.split(".", 2)
    convolution = "convtr" if isinstance(layers[int(index)], EncodecConvTranspose1d) else "conv"
    parts = [part for one in rest.split(".") for part in ((convolution, convolution) if one == "conv" else (one,))]
    return old_weight_norm(".".join(("model", index, *parts)))


def old_weight_norm(name: str) -> str:
    """The older spelling of a weight's name: ``weight_g`` and ``weight_v`` in place of parametrizations."""
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        name = name.replace(new, old)
    return name
