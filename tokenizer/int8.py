"""Linear layers in 8-bit integers, for processors: a quarter of the memory and a multiple of the speed of float32.

Weights are rounded once, each output's row by its largest value; inputs at each call, each row by its largest value. So
no row depends on others of its batch, and one frame of large values costs the others nothing. The products are those of
torch's quantized kernels (FBGEMM), which use VNNI where the processor has it.
"""
# Shapes: N rows of the input, I inputs, O outputs.

from __future__ import annotations

import hashlib
import warnings
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)

INT8_KERNEL = "linear_with_input_q_dq_qweight_dq_output_fp32"
"""Of ``torch.ops.quantized``: rounds its input by a given step, and gives float32."""

_ENGINE = "x86"
_LEVELS = 127  # of a weight, on each side of zero
_SMALLEST_SIZE = 64  # of inputs and outputs; smaller layers cost nothing, and lose most


class Int8Linear(nn.Module):
    """What a linear layer computes, in 8-bit integers: for inference on a processor alone.

    Args:
        linear: the layer; it is left as it is.

    Raises:
        ValueError: if this torch or processor has no such kernel.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._levels = input_levels()
        self._packed = _packed(linear.weight.detach().float())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float(), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Computes ``[..., I]`` → ``[..., O]``, in the dtype of the input.

        Raises:
            ValueError: if the input is not on a processor, or a gradient is asked for.
        """
        if input.device.type != "cpu":
            raise ValueError(f"int8 layers compute on processors only, and the input is on {input.device}")
        if torch.is_grad_enabled() and input.requires_grad:
            raise ValueError("int8 layers have no gradient: train the model in float32 or bfloat16")
        rows_NI = input.reshape(-1, self.in_features).float()
        largest_N1 = rows_NI.abs().amax(dim=-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        output_NO = _product(rows_NI / largest_N1, self._packed, self._levels).mul_(largest_N1)
        if self.bias is not None:
            output_NO += self.bias
        return output_NO.view(*input.shape[:-1], self.out_features).to(input.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise ValueError(f"{prefix}weight is rounded to int8, which cannot be saved: save the model before to_int8()")


def int8_fingerprint(fingerprint: str) -> str:
    """Of what was rounded to int8, from that of what it was before: its codes are others."""
    return hashlib.sha256(f"{fingerprint} in int8".encode()).hexdigest()


def round_once(model: Any, *parts: nn.Module | None) -> None:
    """Rounds parts of a model, if that was not done before, and notes the fingerprint that it has from then on.

    Args:
        model: has ``fingerprint()``, which gives ``_int8_fingerprint`` where that is not None.
        parts: of it; None for one that it does without.

    Raises:
        ValueError: as for `to_int8`.
    """
    if model._int8_fingerprint is not None:
        return
    fingerprint = model.fingerprint()
    for part in parts:
        if part is not None:
            to_int8(part)
    model._int8_fingerprint = int8_fingerprint(fingerprint)


def to_int8(module: AnyModule) -> AnyModule:
    """Puts an `Int8Linear` in the place of each linear layer below a module; returns the module.

    Layers with fewer than 64 inputs or outputs stay as they are.

    Raises:
        ValueError: if this torch or processor has no such kernel, or the module is not on a processor.
    """
    input_levels()
    linears = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and min(layer.in_features, layer.out_features) >= _SMALLEST_SIZE
    }
    for name, layer in linears.items():
        if layer.weight.device.type != "cpu":
            raise ValueError(f"int8 is for processors, and {name} is on {layer.weight.device}: use bfloat16 there")
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, Int8Linear(layer))
    return module


@cache
def input_levels() -> int:
    """How finely an input is rounded, on each side of zero: 127, or 63 where products of larger values overflow.

    Processors without VNNI add pairs of products in 16 bits; whether this one does is tried out.

    Raises:
        ValueError: if this torch or processor has no such kernel.
    """
    if _ENGINE not in torch.backends.quantized.supported_engines or not _has_kernel():
        raise ValueError(f"int8: torch {torch.__version__} has no kernel for it on this machine: use float32")
    ones_NI = torch.ones(1, 2 * _SMALLEST_SIZE)
    packed = _packed(torch.ones(_SMALLEST_SIZE, 2 * _SMALLEST_SIZE))
    for levels in (127, 63):
        found_NO = _product(ones_NI, packed, levels)
        if torch.allclose(found_NO, torch.full_like(found_NO, ones_NI.shape[1]), rtol=0.01):
            return levels
    raise ValueError("int8: the kernel for it gives wrong products on this machine: use float32")


def has_int8() -> bool:
    """Whether this torch, on this processor, has the kernel."""
    try:
        input_levels()
    except ValueError:
        return False
    return True


def _has_kernel() -> bool:
    return hasattr(torch, "quantize_per_channel") and hasattr(torch.ops.quantized, INT8_KERNEL)


def _packed(weight_OI: Tensor) -> Any:
    """The rounded weight, laid out as the kernel wants it."""
    scale_O = (weight_OI.abs().amax(dim=-1) / _LEVELS).clamp_min_(torch.finfo(torch.float32).tiny)
    zero_O = torch.zeros(len(scale_O), dtype=torch.int64)
    with warnings.catch_warnings():
        # Torch means to take such tensors out one day; `input_levels` says so where it has.
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch.quantize_per_channel")
        rounded = torch.quantize_per_channel(weight_OI.contiguous(), scale_O.double(), zero_O, 0, torch.qint8)
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = _ENGINE
    try:
        return torch.ops.quantized.linear_prepack(rounded, None)
    finally:
        torch.backends.quantized.engine = engine


def _product(rows_NI: Tensor, packed: Any, levels: int) -> Tensor:
    """``[N, O]`` of inputs in [-1, 1]."""
    kernel = getattr(torch.ops.quantized, INT8_KERNEL)
    output_NO: Tensor = kernel(rows_NI, 1 / levels, levels + 1, packed)
    return output_NO
