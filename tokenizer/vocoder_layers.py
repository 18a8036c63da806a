"""Layers of the vocoder: the snake activation, its residual block, and the predictor of the fundamental."""
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

    def forward(self, x_BCT: Tensor) -> Tensor:
        alpha_C1 = self.alpha[:, None]
        scale_C1 = 1 / (alpha_C1 + 1e-9)
        if torch.is_grad_enabled():
            return x_BCT + (x_BCT * alpha_C1).sin().square() * scale_C1
        return (x_BCT * alpha_C1).sin_().square_().mul_(scale_C1).add_(x_BCT)


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

    def forward(self, x_BCT: Tensor, num_frames_B: Tensor | None) -> Tensor:
        for index, (first, second) in enumerate(zip(self.conv1, self.conv2, strict=True)):
            inner = hide_beyond(first(self.activations1[index](x_BCT)), num_frames_B)
            x_BCT = x_BCT + hide_beyond(second(self.activations2[index](inner)), num_frames_B)
        return x_BCT


class F0Predictor(nn.Module):
    """Predicts the fundamental frequency from the mel spectrogram, in Hz; below a threshold means unvoiced."""

    def __init__(self, num_mels: int, channels: int, num_layers: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(num_layers):
            layers += [WeightNormConv1d(num_mels if index == 0 else channels, channels, 3, padding=1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)
        self.reach = num_layers

    def forward(self, mel_BCM: Tensor, num_frames_B: Tensor | None) -> Tensor:
        x_BCM = hide_beyond(mel_BCM.to(self.classifier.weight.dtype), num_frames_B)
        for layer in self.condnet:
            x_BCM = layer(x_BCM) if isinstance(layer, nn.ELU) else hide_beyond(layer(x_BCM), num_frames_B)
        return self.classifier(x_BCM.transpose(1, 2))[..., 0].abs().float()


def reach_of_block(kernel_size: int, dilations: Sequence[int]) -> int:
    """Frames on either side of an output frame that influence it."""
    return sum(kernel_size // 2 * (dilation + 1) for dilation in dilations)


def hide_beyond(x_BCT: Tensor, num_frames_B: Tensor | None) -> Tensor:
    """Sets to zero what lies beyond each row's own frames, as the padding of a row alone does."""
    if num_frames_B is None:
        return x_BCT
    beyond_BT = torch.arange(x_BCT.shape[-1], device=x_BCT.device) >= num_frames_B[:, None]
    return x_BCT.masked_fill(beyond_BT[:, None], 0)
