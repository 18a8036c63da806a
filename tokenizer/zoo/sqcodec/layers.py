"""Convolutions that may look at what was before alone, and the residual units between their strides."""
# Shapes: B clips, C channels, T frames of whatever rate.

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

DILATIONS = (1, 3, 5, 7, 9)
"""Of the residual units between two strides."""


class Conv(nn.Conv1d):
    """A convolution with padding, ``[B, C, T]`` to ``[B, C', T / stride]``.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: in frames.
        stride: in frames.
        dilation: in frames.
        is_causal: all padding lies before; else half of it on either side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        is_causal: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
        span = dilation * (kernel_size - 1)
        half = int((kernel_size * dilation - dilation) / 2)
        self.pads = (span, 0) if is_causal else (half, half)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.pads))


class ConvTranspose(nn.ConvTranspose1d):
    """The reverse of a strided convolution, ``[B, C, T]`` to ``[B, C', T * stride]``.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: in frames of the output.
        stride: in frames of the output.
        is_causal: what reaches behind the last frame is dropped; else as much on either side.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, is_causal: bool = False
    ) -> None:
        padding = 0 if is_causal else (kernel_size - stride) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.is_causal = is_causal

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        made = super().forward(input, output_size)
        return made[..., : input.shape[-1] * self.stride[0]] if self.is_causal else made


class ResidualUnit(nn.Module):
    """Adds two convolutions, each with a PReLU behind it, ``[B, C, T]`` to the same."""

    def __init__(self, num_channels: int, kernel_size: int, dilation: int, is_causal: bool) -> None:
        super().__init__()
        self.conv1 = weight_norm(Conv(num_channels, num_channels, kernel_size, dilation=dilation, is_causal=is_causal))
        self.activation1 = nn.PReLU()
        self.conv2 = weight_norm(Conv(num_channels, num_channels, 1, is_causal=is_causal))
        self.activation2 = nn.PReLU()

    def forward(self, features_BCT: Tensor) -> Tensor:
        hidden_BCT = self.activation1(self.conv1(features_BCT))
        added_BCT: Tensor = self.activation2(self.conv2(hidden_BCT))
        return features_BCT + added_BCT


def residual_units(num_channels: int, kernel_size: int, is_causal: bool) -> nn.Sequential:
    """One unit for each of `DILATIONS`."""
    return nn.Sequential(*(ResidualUnit(num_channels, kernel_size, one, is_causal) for one in DILATIONS))


class _Strided(nn.Module):
    """A strided convolution in the place where a release has it."""

    def __init__(self, layer: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = weight_norm(layer)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.layer(features)
        return made if self.activation is None else self.activation(made)


class Downsample(nn.Module):
    """Residual units, then a stride that doubles the channels, ``[B, C, T]`` to ``[B, 2 C, T / factor]``."""

    def __init__(self, num_channels: int, factor: int, kernel_size: int, res_kernel_size: int, is_causal: bool) -> None:
        super().__init__()
        self.convs = residual_units(num_channels, res_kernel_size, is_causal)
        stride = Conv(num_channels, 2 * num_channels, kernel_size, stride=factor, is_causal=is_causal)
        self.down_conv = _Strided(stride, nn.PReLU())

    def forward(self, features_BCT: Tensor) -> Tensor:
        made: Tensor = self.down_conv(self.convs(features_BCT))
        return made


class Upsample(nn.Module):
    """A transposed stride that halves the channels, then residual units, ``[B, 2 C, T]`` to ``[B, C, T * factor]``."""

    def __init__(self, num_channels: int, factor: int, kernel_size: int, res_kernel_size: int, is_causal: bool) -> None:
        super().__init__()
        self.up_conv = _Strided(
            ConvTranspose(2 * num_channels, num_channels, kernel_size, stride=factor, is_causal=is_causal)
        )
        self.convs = residual_units(num_channels, res_kernel_size, is_causal)

    def forward(self, features_BCT: Tensor) -> Tensor:
        made: Tensor = self.convs(self.up_conv(features_BCT))
        return made


class Pooled(nn.Module):
    """A convolution, then means of neighbours, ``[B, C, T]`` to ``[B, C, T / size]``."""

    def __init__(self, num_channels: int, kernel_size: int, size: int, is_causal: bool) -> None:
        super().__init__()
        self.conv = Conv(num_channels, num_channels, kernel_size, is_causal=is_causal)
        self.activation = nn.PReLU()
        self.size = size

    def forward(self, features_BCT: Tensor) -> Tensor:
        hidden_BCT: Tensor = self.activation(self.conv(features_BCT))
        return F.avg_pool1d(hidden_BCT, self.size)


class Repeated(nn.Module):
    """Each frame several times over, then a convolution, ``[B, C, T]`` to ``[B, C, T * size]``."""

    def __init__(self, num_channels: int, kernel_size: int, size: int, is_causal: bool) -> None:
        super().__init__()
        self.conv = Conv(num_channels, num_channels, kernel_size, is_causal=is_causal)
        self.activation = nn.PReLU()
        self.size = size

    def forward(self, features_BCT: Tensor) -> Tensor:
        made: Tensor = self.activation(self.conv(features_BCT.repeat_interleave(self.size, dim=-1)))
        return made
