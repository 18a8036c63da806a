"""The scales of an encoder: at its start, and where its codebook begins."""
# Shapes: B segments, N samples; N frames of all of them, D feature size.

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.encodec.modeling_encodec import EncodecConv1d

from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer

SMALLEST_DEVIATION = 1e-6  # less is that of silence, which has no scale


@torch.no_grad()
def scale_to_sound(encoder: nn.Module, waveforms_BN: Tensor) -> None:
    """Scales convolutions until their outputs vary by one on real sound (Mishkin and Matas, 2016, LSUV), without bias.

    Waveforms are small numbers and get smaller from layer to layer, until biases are all that is left of them: a fresh
    encoder then says the same of every sound, and its decoder learns to pass it over. Silence scales nothing.
    """
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv1d)]
    for layer in layers:
        assert layer.bias is not None
        layer.bias.zero_()
    handles = [layer.register_forward_hook(_scaled_to_one) for layer in layers]
    try:
        encoder(waveforms_BN[:, None])
    finally:
        for handle in handles:
            handle.remove()


def _scaled_to_one(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """Scales a convolution without bias by what comes out of it; what follows sees what comes out of the scaled one."""
    deviation = float(output.std())
    if deviation <= SMALLEST_DEVIATION:
        return None
    parameters = dict(layer.named_parameters())
    length = "parametrizations.weight.original0"  # of a weight in two parts
    parameters[length if length in parameters else "weight"].div_(deviation)
    return output / deviation


@torch.no_grad()
def scale_features(tokenizer: WavTokenizer, features_ND: Tensor) -> Tensor:
    """Makes the features vary by one, and has the decoder take them as they were: what it makes of them stays.

    Before there are codes nothing holds the features' size. The commitment loss grows with its square, and of features
    that have grown would be all that an encoder learns by: it shrinks them in a few updates, away from the entries,
    until a handful of these are nearest to everything.

    Args:
        tokenizer: with a decoder.
        features_ND: of some sound.

    Returns:
        The features as they are from now on.
    """
    assert tokenizer.backbone is not None
    deviation = float(features_ND.var(dim=0, correction=0).mean().sqrt())
    if deviation <= SMALLEST_DEVIATION:
        return features_ND
    last = tokenizer.encoder.layers[-1]
    assert isinstance(last, EncodecConv1d)
    assert last.conv.bias is not None
    last.conv.parametrizations.weight.original0.div_(deviation)
    last.conv.bias.div_(deviation)
    tokenizer.backbone.embed.weight.mul_(deviation)
    return features_ND / deviation
