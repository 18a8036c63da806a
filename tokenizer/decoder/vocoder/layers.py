"""Layers of the vocoder: the snake activation, its residual block, and the predictor of the fundamental.

Signals are images of height one, see `convolve_rows`.
"""
# Shapes: B rows, C channels or mel bins, T frames of a layer, M mel frames.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .weight_norm import WeightNormConv1d


class Snake(nn.Module):
    """Periodic activation x + sin²(αx)/α with an α per channel (Ziyin et al., 2020, arXiv:2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x_BC1T: Tensor) -> Tensor:
        alpha_C11 = self.alpha[:, None, None]
        scale_C11 = 1 / (alpha_C11 + 1e-9)  # alpha is trained without bounds, and may cross zero
        if torch.is_grad_enabled():
            return x_BC1T + (x_BC1T * alpha_C11).sin().square() * scale_C11
        # In place where no gradient needs the steps between: these tensors are the vocoder's largest.
        return (x_BC1T * alpha_C11).sin_().square_().mul_(scale_C11).add_(x_BC1T)


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution behind snakes, each pair added to its input."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def convolution(dilation: int) -> WeightNormConv1d:
            padding = dilation * (kernel_size - 1) // 2
            return WeightNormConv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)

        self.conv1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.conv2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x_BC1T: Tensor, num_frames_B: Tensor | None) -> Tensor:
        for index, (first, second) in enumerate(zip(self.conv1, self.conv2, strict=True)):
            inner = hide_beyond(first(self.activations1[index](x_BC1T)), num_frames_B)
            x_BC1T = x_BC1T + hide_beyond(second(self.activations2[index](inner)), num_frames_B)
        return x_BC1T


class F0Predictor(nn.Module):
    """Predicts the fundamental frequency from the mel spectrogram, in Hz; below a threshold means unvoiced."""

    def __init__(self, num_mels: int, channels: int, num_layers: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(num_layers):
            layers += [WeightNormConv1d(num_mels if index == 0 else channels, channels, 3, padding=1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)
        self.reach = num_layers  # a frame on either side for each kernel of three

    def forward(self, mel_BCM: Tensor, num_frames_B: Tensor | None) -> Tensor:
        """Returns ``[B, M]``, float32."""
        x_BC1M = hide_beyond(as_image(mel_BCM, self.classifier.weight.dtype), num_frames_B)
        for layer in self.condnet:
            x_BC1M = layer(x_BC1M) if isinstance(layer, nn.ELU) else hide_beyond(layer(x_BC1M), num_frames_B)
        # The published predictor takes the absolute value too: the head ends without an activation.
        return self.classifier(x_BC1M[:, :, 0].transpose(1, 2))[..., 0].abs().float()


def reach_of_block(kernel_size: int, dilations: Sequence[int]) -> int:
    """Frames on either side of an output frame that influence it."""
    return sum(kernel_size // 2 * (dilation + 1) for dilation in dilations)


def as_image(x_BCT: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns ``[B, C, 1, T]``, on a CPU with the channels last in memory."""
    layout = torch.channels_last if x_BCT.device.type == "cpu" else torch.contiguous_format
    return x_BCT[:, :, None].to(dtype).contiguous(memory_format=layout)


def hide_beyond(x_BxT: Tensor, num_frames_B: Tensor | None) -> Tensor:
    """Sets to zero what lies beyond each row's own frames, as the padding of a row alone does."""
    if num_frames_B is None:
        return x_BxT
    beyond_BT = torch.arange(x_BxT.shape[-1], device=x_BxT.device) >= num_frames_B[:, None]
    return x_BxT.masked_fill(beyond_BT.view(len(x_BxT), *[1] * (x_BxT.dim() - 2), -1), 0)
