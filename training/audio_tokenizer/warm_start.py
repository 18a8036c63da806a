"""Warm start of a tokenizer made of Whisper: what is new begins softly, so that its decoder understands it at once.

Two new parts shout over Whisper's own features when they begin. The positions that are added behind the quantizer are
sinusoids of amplitude 1, while the features there deviate by a quarter of that: with them, Whisper tiny.en's loss on
transcripts rises from 1.5 to 8 nats per token. And the norm at the end of the gated residual (SAE) gives all channels
one scale, which alone costs a nat and a half. Trainings recover from both, but those of minutes spend time on it.
"""
# Shapes: T frames, D feature size, N samples.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.supervision.model import SupervisedTokenizer

POSITION_SCALE = 0.1


@torch.no_grad()
def warm_start(
    model: SupervisedTokenizer, waveforms: Sequence[Tensor], *, position_scale: float = POSITION_SCALE
) -> None:
    """Lets a model that was just made of Whisper begin as Whisper, in place.

    The positions behind the quantizer are scaled down. The SAE's adapter begins with zeros, and the affine part of its
    norm is fitted, channel by channel, so that what comes out is close to the deep features that went in.

    Args:
        model: from `SupervisedTokenizer.from_whisper`.
        waveforms: some training clips to fit the norm on, float ``[N_i]`` at 16 kHz; not needed without SAE.
        position_scale: factor on the positions.

    Raises:
        ValueError: if there is an SAE in front of the quantizer and no clip to fit its norm on.
    """
    tokenizer = model.tokenizer
    tokenizer.code_positions.weight.mul_(position_scale)
    if tokenizer.sae is None or not tokenizer.sae_is_active:
        return
    if tokenizer.sae.use_adapter:
        last = tokenizer.sae.adapter[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.zero_()
    deep: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        deep.append(inputs[0].flatten(0, 1).float())

    handle = tokenizer.sae.register_forward_pre_hook(keep)
    try:
        tokenizer.encode([waveform for waveform in waveforms if len(waveform)], SAMPLE_RATE)
    finally:
        handle.remove()
    if not deep:
        raise ValueError("no clips to fit the norm of the SAE on: give some training clips")
    fit_norm(tokenizer.sae.norm, torch.cat(deep))


@torch.no_grad()
def fit_norm(norm: nn.LayerNorm, features_TD: Tensor) -> None:
    """Sets weight and bias so that the norm changes given features as little as possible, in the mean square."""
    normalized_TD = F.layer_norm(features_TD, norm.normalized_shape, eps=norm.eps)
    means_D, normalized_means_D = features_TD.mean(dim=0), normalized_TD.mean(dim=0)
    covariance_D = ((features_TD - means_D) * (normalized_TD - normalized_means_D)).mean(dim=0)
    # Channel by channel the least squares fit; one that never varies gets weight zero instead of 0 / 0.
    weight_D = covariance_D / normalized_TD.var(dim=0, correction=0).clamp(min=1e-12)
    norm.weight.copy_(weight_D)
    norm.bias.copy_(means_D - weight_D * normalized_means_D)
