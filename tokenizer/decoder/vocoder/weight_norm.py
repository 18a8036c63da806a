"""Convolutions with weight normalization (Salimans and Kingma, 2016, arXiv:1602.07868) that can be folded away.

The checkpoint always holds ``weight_g`` and ``weight_v``, as released vocoders do. In memory a convolution holds these
two while it is trained, or, folded, the one ``weight`` that they make, which saves computing it in every call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


class _WeightNormalized(_ConvNd):
    """Direction ``weight_v`` times length ``weight_g`` per slice of the first axis; or one folded ``weight``."""

    weight_g: nn.Parameter
    weight_v: nn.Parameter

    def _split(self) -> None:
        length, direction = split_weight(self.weight.detach())
        trained = self.weight.requires_grad
        del self.weight
        self.weight_g = nn.Parameter(length, requires_grad=trained)
        self.weight_v = nn.Parameter(direction, requires_grad=trained)

    @property
    def is_folded(self) -> bool:
        """Whether there is one plain weight."""
        return "weight" in self._parameters

    def effective_weight(self) -> Tensor:
        """Returns the weight to convolve with."""
        return self.weight if self.is_folded else join_weight(self.weight_g, self.weight_v)

    def fold(self) -> None:
        """Replaces the two parameters by the weight that they make."""
        if self.is_folded:
            return
        # In float32, then rounded once.
        weight = join_weight(self.weight_g.detach().float(), self.weight_v.detach().float()).to(self.weight_v.dtype)
        trained = self.weight_v.requires_grad
        del self.weight_g, self.weight_v
        self.weight = nn.Parameter(weight, requires_grad=trained)

    def unfold(self) -> None:
        """Splits a folded weight into length and direction again, to go on training."""
        if self.is_folded:
            self._split()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.is_folded:
            weight = destination.pop(prefix + "weight")
            destination[prefix + "weight_g"], destination[prefix + "weight_v"] = split_weight(weight)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        names = (prefix + "weight_g", prefix + "weight_v")
        if self.is_folded and all(name in state_dict for name in names):
            length, direction = (state_dict.pop(name) for name in names)
            state_dict[prefix + "weight"] = join_weight(length, direction)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class WeightNormConv1d(_WeightNormalized, nn.Conv1d):
    """``nn.Conv1d`` with weight normalization, on images of height one; zero padding and one group only."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._split()

    def forward(self, input: Tensor) -> Tensor:
        """Convolves ``[B, C, 1, T]``."""
        assert not isinstance(self.padding, str)
        return convolve_rows(
            input, self.effective_weight(), self.bias, self.stride[0], self.padding[0], self.dilation[0]
        )


class WeightNormConvTranspose1d(_WeightNormalized, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with weight normalization, on images of height one; a length per input channel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._split()

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolves ``[B, C, 1, T]``."""
        assert not isinstance(self.padding, str)
        weight = self.effective_weight()[:, :, None]
        return F.conv_transpose2d(input, weight, self.bias, (1, self.stride[0]), (0, self.padding[0]))


def convolve_rows(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """Convolves ``[B, C, 1, T]`` with a weight ``[D, C, K]`` along the last axis.

    A signal as an image of height one, because images have a memory layout with the channels last: on CPUs their
    convolutions are up to four times as fast as those of ``conv1d``, which turns the layout in every call.
    """
    return F.conv2d(input, weight[:, :, None], bias, (1, stride), (0, padding), (1, dilation))


def join_weight(length: Tensor, direction: Tensor) -> Tensor:
    """Scales every slice of the first axis of ``direction`` to the length given by ``length`` ``[C, 1, 1]``."""
    norm = torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
    # A slice of zeros stays zero instead of becoming NaN.
    return direction * (length / norm.clamp(min=torch.finfo(norm.dtype).tiny))


def split_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns length ``[C, 1, 1]`` and direction, which is the weight itself."""
    return torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True), weight.clone()


def fold_weight_norm(module: nn.Module) -> None:
    """Folds every convolution in a module."""
    for child in module.modules():
        if isinstance(child, _WeightNormalized):
            child.fold()


def unfold_weight_norm(module: nn.Module) -> None:
    """Undoes `fold_weight_norm`."""
    for child in module.modules():
        if isinstance(child, _WeightNormalized):
            child.unfold()
