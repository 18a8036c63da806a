"""Warm start of a tokenizer made of Whisper: what is new begins softly, so that its decoder understands it at once.

Two new parts shout over Whisper's own features when they begin. The positions that are added behind the quantizer are
sinusoids of amplitude 1, while the features there deviate by a quarter of that: with them, Whisper tiny.en's loss on
transcripts rises from 1.5 to 8 nats per token. And the norm at the end of the gated residual (SAE) gives all channels
one scale, which alone costs a nat and a half. Trainings recover from both, but those of minutes spend time on it.

StableToken's voters are new as well. Drawn at random, what they say hangs on the few channels in which features are
largest, so that bits can be all but constant; on principal components each begins with something of its own to say.
"""
# Shapes: T frames, D feature size, N samples, C bits of a code.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.quantizer.lfq import VotingLFQ
from audiollm.tokenizer.supervision.model import SupervisedModel, SupervisedTokenizer

POSITION_SCALE = 0.1
VOTER_SPREAD = 0.1  # of the weights of each voter around those that all begin with, in their own deviation


@torch.no_grad()
def warm_start(
    model: SupervisedModel, waveforms: Sequence[Tensor], *, position_scale: float = POSITION_SCALE, seed: int = 0
) -> None:
    """Lets a model that was just made of Whisper begin as Whisper, in place.

    The positions behind the quantizer are scaled down. The SAE's adapter begins with zeros, and the affine part of its
    norm is fitted, channel by channel, so that what comes out is close to the deep features that went in. Voters begin
    as `fit_voters` has them.

    Args:
        model: from the ``from_whisper`` of its class.
        waveforms: some training clips to fit to, float ``[N_i]`` at 16 kHz; not needed where there is neither an SAE
            nor a vote.
        position_scale: factor on the positions.
        seed: decides how voters differ from each other.

    Raises:
        ValueError: if there is an SAE in front of the quantizer, or a vote, and no clip to fit to.
    """
    tokenizer = model.tokenizer
    tokenizer.code_positions.weight.mul_(position_scale)
    clips = [waveform for waveform in waveforms if len(waveform)]
    if isinstance(tokenizer.codebook, VotingLFQ):
        if not clips:
            raise ValueError("no clips to fit the voters to: give some training clips")
        features = tokenizer.encode(clips, SAMPLE_RATE, return_features=True).features
        fit_voters(tokenizer.codebook, torch.cat(features).float(), seed=seed)
        return
    assert isinstance(model, SupervisedTokenizer)
    _ease_residual(model, clips)


def _ease_residual(model: SupervisedTokenizer, clips: Sequence[Tensor]) -> None:
    tokenizer = model.tokenizer
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
        tokenizer.encode(clips, SAMPLE_RATE)
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


@torch.no_grad()
def fit_voters(voters: VotingLFQ, features_TD: Tensor, *, seed: int = 0) -> None:
    """Lets each bit begin as the side of a principal component of features, and what it stands for as their mean there.

    Components of deviation 1 are turned at random, so that no bit has more to say than another. All voters begin close
    to each other. A code becomes the features of which its bits say most, by least squares.

    Args:
        voters: changed in place.
        features_TD: what the quantizer sees, float32 ``[T, D]``.
        seed: of the turn, and of the differences between voters.
    """
    random = torch.Generator().manual_seed(seed)
    # In float64: components are told apart by their variances, which differ by factors of thousands.
    features_TD = features_TD.double()
    mean_D = features_TD.mean(dim=0)
    centred_TD = features_TD - mean_D
    variances_D, axes_DD = torch.linalg.eigh(centred_TD.t() @ centred_TD / len(centred_TD))
    variances_C, axes_DC = variances_D[-voters.num_bits :], axes_DD[:, -voters.num_bits :]
    # Axes that hardly vary (or more bits than channels) stay as they are, rather than making noise large.
    scaled_DC = axes_DC / variances_C.clamp(min=1e-4 * float(variances_D[-1]) + 1e-12).sqrt()
    turn_CC = torch.linalg.qr(torch.randn(voters.num_bits, scaled_DC.shape[1], generator=random).double()).Q
    common_CD = turn_CC.to(scaled_DC.device) @ scaled_DC.t()
    for voter in voters.project_in:
        assert isinstance(voter, nn.Linear)
        own_CD = torch.randn(common_CD.shape, generator=random).to(common_CD) * VOTER_SPREAD * common_CD.std()
        voter.weight.copy_(common_CD + own_CD)
        if voter.bias is not None:
            voter.bias.copy_(-voter.weight.double() @ mean_D)
    signs_TC = voters.bits(voters.encode(features_TD)).double()
    with_one_TC = torch.cat([signs_TC, torch.ones_like(signs_TC[:, :1])], dim=1)
    # A little of the identity, for a bit that never changes in these features says what the constant says.
    squares_CC = with_one_TC.t() @ with_one_TC + 1e-6 * len(with_one_TC) * torch.eye(voters.num_bits + 1).to(signs_TC)
    fitted_CD = torch.linalg.solve(squares_CC, with_one_TC.t() @ features_TD)
    voters.project_out.weight.copy_(fitted_CD[:-1].t())
    if voters.project_out.bias is not None:
        voters.project_out.bias.copy_(fitted_CD[-1])
