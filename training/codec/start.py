"""How an encoder starts: with convolutions whose outputs vary by one on real sound (Mishkin and Matas, 2016, LSUV).

Waveforms are small numbers and get smaller from layer to layer, until biases are all that is left of them: a fresh
encoder then says the same of every sound, and its decoder learns to pass it over.
"""
# Shapes: B segments, N samples.

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.encodec.modeling_encodec import EncodecConv1d

from audiollm.tokenizer.layers.seanet import SeanetEncoder

SMALLEST_DEVIATION = 1e-6  # of an output that is nothing but silence


@torch.no_grad()
def scale_to_sound(encoder: SeanetEncoder, waveforms_BN: Tensor) -> None:
    """Scales the weights of each convolution by what comes out of it, first layers first, and takes away its bias."""
    for layer in encoder.modules():
        if not isinstance(layer, EncodecConv1d):
            continue
        assert layer.conv.bias is not None
        layer.conv.bias.zero_()
        deviations: list[float] = []
        handle = layer.register_forward_hook(lambda _, __, output, seen=deviations: seen.append(float(output.std())))
        encoder(waveforms_BN[:, None])
        handle.remove()
        layer.conv.parametrizations.weight.original0 /= max(deviations[0], SMALLEST_DEVIATION)
