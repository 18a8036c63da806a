"""Voting lookup-free quantization: several linear maps vote on the sign of every bit of a code.

Lookup-free quantization after Yu et al., 2023 (arXiv:2310.05737): the codebook is all vectors of ±1, so the nearest
entry is the sign of each channel. StableToken (arXiv:2509.22220) has several maps vote on each sign, so that noise that
flips a bit of one of them does not change the code; in training, some of them hear the clip with noise added.
"""
# Shapes: K voters, B batch, T frames, N valid frames, D feature size, C bits of a code, V codes (2 to the power of C);
# F codes of the first half of the bits and L of the last, F L = V.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.linear import Linear, linear

from .codebook import check_codes
from .deferred import CodebookUpdate, sum_over_ranks
from .usage import RemembersCodes, perplexity_of

TEMPERATURE = 0.01  # of the entropies: the smaller, the closer to counting codes
ENTROPY_EPSILON = 1e-5  # inside the logarithm of a probability that may be 0


@dataclass
class LFQOutput:
    """One pass through the quantizer; the losses are there in training only, as float32 scalars."""

    quantized: Tensor  # [B, T, D]
    codes: Tensor  # [B, T] int64
    projections: Tensor  # [K, B, T, C] float32: what the voters say, before the vote
    loss: Tensor | None = None  # the weighted sum of the others
    per_sample_entropy: Tensor | None = None  # nats: how unsure a frame is between codes
    codebook_entropy: Tensor | None = None  # nats: how evenly all codes are used; the loss makes it large
    commitment_loss: Tensor | None = None
    consensus_loss: Tensor | None = None


class VotingLFQ(RemembersCodes):
    """Turns each frame into the C bits that most voters agree on; ties give 0.

    Args:
        codebook_size: V, a power of two.
        dim: feature size D.
        num_voters: K; odd, if ties are not to be.
        num_clean: voters that hear the clean features when there are noisy ones as well.
        bias: whether the linear maps have one.
        sample_weight: of the entropy of each frame in the loss.
        batch_weight: of the entropy of the codebook, which is subtracted.
        commitment_weight: of the distance of each voter from the vote.
        consensus_weight: of the distance of each voter from the mean of all.

    With ``deferred`` set to True, a pass in training mode only counts its codes, and `apply_update` remembers what was
    counted: for updates of many passes, unevenly many per process. The entropy of the codebook belongs to all frames of
    an update, too: `probability_sums` of its passes make the ``mean_probabilities`` that `forward` takes.

    Raises:
        ValueError: for sizes that do not fit.
    """

    deferred = False

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        num_voters: int = 5,
        num_clean: int = 3,
        bias: bool = True,
        sample_weight: float = 1.0,
        batch_weight: float = 1.0,
        commitment_weight: float = 0.25,
        consensus_weight: float = 0.25,
    ) -> None:
        self.num_bits = bits_of(codebook_size)
        if not 1 <= num_clean <= num_voters:
            raise ValueError(f"num_clean={num_clean}: use 1 to num_voters={num_voters}")
        super().__init__(codebook_size)
        self.dim, self.num_voters, self.num_clean = dim, num_voters, num_clean
        self.sample_weight, self.batch_weight = sample_weight, batch_weight
        self.commitment_weight, self.consensus_weight = commitment_weight, consensus_weight
        self.project_in = nn.ModuleList(Linear(dim, self.num_bits, bias=bias) for _ in range(num_voters))
        self.project_out = Linear(self.num_bits, dim, bias=bias)
        self._deferred_counts_V: Tensor | None = None

    def extra_repr(self) -> str:
        return f"{self.codebook_size}, {self.dim}, num_voters={self.num_voters}, num_clean={self.num_clean}"

    # ------------------------------------------------------------------ search

    def search_index(self) -> None:
        """Nothing to make ready: there is no table."""

    @torch.no_grad()
    def encode(self, features_BTD: Tensor, index: Any = None) -> Tensor:
        """Finds the codes of features ``[..., D]`` of any float dtype; int64 ``[...]``. ``index`` is not needed.

        Raises:
            ValueError: if the features have another size.
        """
        return self._codes_of(self._vote(self.project(features_BTD)))

    def project(self, features_BTD: Tensor) -> Tensor:
        """What each voter says of each bit, float32 ``[K, ..., C]``: the sign is its vote.

        Raises:
            ValueError: if the features have another size.
        """
        if features_BTD.shape[-1] != self.dim:
            raise ValueError(f"features have {features_BTD.shape[-1]} channels, but the quantizer takes {self.dim}")
        return torch.stack([self._ask(voter, features_BTD) for voter in self.project_in])

    def _ask(self, voter: nn.Module, features_BTD: Tensor) -> Tensor:
        # float32 on purpose, also under autocast: bf16 keeps 8 significant bits, so near ties get the wrong sign.
        assert isinstance(voter, nn.Linear)
        bias = None if voter.bias is None else voter.bias.float()
        with torch.autocast(features_BTD.device.type, enabled=False):
            return linear(features_BTD.float(), voter.weight.float(), bias)

    def _vote(self, projections_KBTC: Tensor) -> Tensor:
        return _signs(_signs(projections_KBTC).sum(dim=0))

    def _codes_of(self, votes_BTC: Tensor) -> Tensor:
        places_C = 2 ** torch.arange(self.num_bits, device=votes_BTC.device)
        return ((votes_BTC > 0) * places_C).sum(dim=-1)

    def bits(self, codes_BT: Tensor) -> Tensor:
        """The vector of ±1 that each code stands for, float32 ``[..., C]``.

        Raises:
            ValueError: if a code is outside [0, V).
        """
        check_codes(codes_BT, self.codebook_size)
        places_C = torch.arange(self.num_bits, device=codes_BT.device)
        return ((codes_BT[..., None] >> places_C & 1) * 2 - 1).float()

    def lookup(self, codes_BT: Tensor) -> Tensor:
        """Returns what codes are for the layers behind the quantizer, ``[..., D]``.

        Raises:
            ValueError: if a code is outside [0, V).
        """
        return self._project_out(self.bits(codes_BT))

    def _project_out(self, votes_BTC: Tensor) -> Tensor:
        out: Tensor = self.project_out(votes_BTC.to(self.project_out.weight.dtype))
        return out

    # ---------------------------------------------------------------- training

    def forward(
        self,
        features_BTD: Tensor,
        mask_BT: Tensor | None = None,
        noisy_BTD: Tensor | None = None,
        voter_order: Tensor | None = None,
        mean_probabilities: Tensor | None = None,
    ) -> LFQOutput:
        """Quantizes; in training mode also computes the losses.

        In training the vote is the plain mean of the voters' signs, and the gradient passes straight through them.

        Args:
            features_BTD: encoder output, any float dtype, ``[B, T, D]``.
            mask_BT: 1 for valid frames, ``[B, T]``; None if all are. Padded frames get codes too but teach nothing.
            noisy_BTD: the same of the clips with noise, for training: the voters that are not clean hear it.
            voter_order: a permutation of the voters, int64 ``[K]``, the first of which hear the clean features; a
                random one if None.
            mean_probabilities: of the codes over all frames of the update that this pass is a part of, ``[K, F, L]``:
                `probability_sums` over the number of frames. The mean of the passes' losses, each weighted by its
                frames, is then the loss of the update, and so are the gradients. None: this pass is the update.

        Raises:
            ValueError: for noisy features in evaluation mode or of another shape, or an order that is no permutation.
        """
        if not self.training:
            if noisy_BTD is not None:
                raise ValueError("noisy features are for training: call train() on the quantizer, or leave them out")
            projections_KBTC = self.project(features_BTD)
            votes_BTC = self._vote(projections_KBTC)
            return LFQOutput(self._project_out(votes_BTC), self._codes_of(votes_BTC), projections_KBTC)
        projections_KBTC = self._ask_all(features_BTD, noisy_BTD, voter_order)
        votes_BTC = _straight_through_signs(projections_KBTC).mean(dim=0)
        output = LFQOutput(self._project_out(votes_BTC), self._codes_of(votes_BTC.detach()), projections_KBTC)
        with torch.autocast(features_BTD.device.type, enabled=False):
            self._learn(output, votes_BTC.detach(), mask_BT, mean_probabilities)
        return output

    @torch.no_grad()
    def probability_sums(
        self,
        features_BTD: Tensor,
        mask_BT: Tensor | None = None,
        noisy_BTD: Tensor | None = None,
        voter_order: Tensor | None = None,
    ) -> Tensor:
        """Adds up what the voters give each code over valid frames, float32 ``[K, F, L]``; nothing is learnt.

        Args:
            features_BTD: as in `forward`, and so are the others.
            mask_BT: 1 for valid frames.
            noisy_BTD: of the clips with noise.
            voter_order: needed where there are noisy features: that of the pass.

        Raises:
            ValueError: as `forward`.
        """
        said_KBTC = self._ask_all(features_BTD, noisy_BTD, voter_order)
        said_KNC = said_KBTC[:, _valid(said_KBTC, mask_BT)]
        with torch.autocast(features_BTD.device.type, enabled=False):
            return torch.stack([first.exp().t() @ last.exp() for first, last in map(self._halves, said_KNC)])

    def _ask_all(self, clean_BTD: Tensor, noisy_BTD: Tensor | None, voter_order: Tensor | None) -> Tensor:
        if noisy_BTD is None:
            return self.project(clean_BTD)
        if noisy_BTD.shape != clean_BTD.shape:
            raise ValueError(
                f"the noisy features have shape {list(noisy_BTD.shape)}, the clean ones {list(clean_BTD.shape)}: they "
                "must be of the same clips"
            )
        order = torch.randperm(self.num_voters).tolist() if voter_order is None else voter_order.tolist()
        if sorted(order) != list(range(self.num_voters)):
            raise ValueError(f"voter_order={order} is no permutation of the {self.num_voters} voters")
        clean = set(order[: self.num_clean])
        return torch.stack(
            [
                self._ask(voter, clean_BTD if number in clean else noisy_BTD)
                for number, voter in enumerate(self.project_in)
            ]
        )

    def _learn(
        self, output: LFQOutput, votes_BTC: Tensor, mask_BT: Tensor | None, mean_probabilities: Tensor | None
    ) -> None:
        valid_BT = _valid(output.projections, mask_BT)
        self._count(output.codes[valid_BT])
        said_KNC, votes_NC = output.projections[:, valid_BT], votes_BTC[valid_BT]
        if not len(votes_NC):  # a batch of padding alone: no frames, no mean
            nothing = said_KNC.sum()
            output.per_sample_entropy = output.codebook_entropy = nothing
            output.commitment_loss = output.consensus_loss = output.loss = nothing
            return
        means = [None] * self.num_voters if mean_probabilities is None else mean_probabilities
        entropies = [self._entropies(said_NC, mean) for said_NC, mean in zip(said_KNC, means, strict=True)]
        output.per_sample_entropy = torch.stack([of_sample for of_sample, _ in entropies]).mean()
        output.codebook_entropy = torch.stack([of_codebook for _, of_codebook in entropies]).mean()
        output.commitment_loss = F.mse_loss(said_KNC, votes_NC.expand_as(said_KNC))
        mean_NC = said_KNC.mean(dim=0).detach()
        # Summed over the voters, where the commitment is their mean: as released.
        output.consensus_loss = self.num_voters * F.mse_loss(said_KNC, mean_NC.expand_as(said_KNC))
        output.loss = (
            self.sample_weight * output.per_sample_entropy
            - self.batch_weight * output.codebook_entropy
            + self.commitment_weight * output.commitment_loss
            + self.consensus_weight * output.consensus_loss
        )

    def _entropies(self, said_NC: Tensor, mean_FL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean entropy of the codes of each frame, and entropy of their mean over frames.

        The probability of a code, softmax of its product with what a voter says, is one of its first bits times one of
        its last: two small tables instead of one of V columns, whose means are one product of matrices.
        """
        first_NF, last_NL = self._halves(said_NC)
        of_sample = -sum((part.exp() * part).sum(dim=-1).mean() for part in (first_NF, last_NL))
        here_FL = first_NF.exp().t() @ last_NL.exp() / len(said_NC)
        if mean_FL is None:
            return torch.as_tensor(of_sample), _entropy(here_FL)
        # The value is the update's. An entropy is no sum over frames, but its slope at the update's mean is one.
        slope_FL = (mean_FL + ENTROPY_EPSILON).log() + mean_FL / (mean_FL + ENTROPY_EPSILON)
        of_codebook = _entropy(mean_FL) - (slope_FL * (here_FL - here_FL.detach())).sum()
        return torch.as_tensor(of_sample), of_codebook

    def _halves(self, said_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the probabilities of the first half of the bits, ``[N, F]``, and of the last, ``[N, L]``."""
        half = (self.num_bits + 1) // 2
        return _log_probabilities(said_NC[:, :half]), _log_probabilities(said_NC[:, half:])

    # --------------------------------------------------------- deferred updates

    def _count(self, codes_N: Tensor) -> None:
        if not self.deferred:
            self._remember(codes_N)
            return
        counts_V = torch.bincount(codes_N, minlength=self.codebook_size).float()
        before = self._deferred_counts_V
        self._deferred_counts_V = counts_V if before is None else before + counts_V

    @torch.no_grad()
    def apply_update(self) -> CodebookUpdate:
        """Remembers the codes of all passes since the last update, on all processes together.

        Every process must call it once per update, also one that had no clip.
        """
        counts_V, self._deferred_counts_V = self._deferred_counts_V, None
        if counts_V is None:
            counts_V = torch.zeros(self.codebook_size, device=self.recent_codes.device)
        sum_over_ranks(counts_V)
        num_frames = int(counts_V.sum())
        if num_frames == 0:
            return CodebookUpdate(perplexity=0.0, num_active=0, num_restarted=0)
        self._remember_counts(counts_V.long())
        return CodebookUpdate(float(perplexity_of(counts_V)), int((counts_V > 0).sum()), 0, num_frames)


def unanimity(projections_KBTC: Tensor) -> Tensor:
    """Share of the bits of each frame on which all voters agree, float32 ``[B, T]``."""
    for_1_BTC = (projections_KBTC > 0).sum(dim=0)
    return ((for_1_BTC == 0) | (for_1_BTC == len(projections_KBTC))).float().mean(dim=-1)


def bits_of(codebook_size: int) -> int:
    """Bits of a code.

    Raises:
        ValueError: unless the size is a power of two.
    """
    bits = codebook_size.bit_length() - 1
    if bits < 1 or codebook_size != 1 << bits:
        raise ValueError(f"codebook_size={codebook_size}: lookup-free codes need a power of two, such as 8192")
    return bits


def _valid(projections_KBTC: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Which frames count, bool ``[B, T]``."""
    if mask_BT is not None:
        return mask_BT.bool()
    return torch.ones(projections_KBTC.shape[1:3], dtype=torch.bool, device=projections_KBTC.device)


def _entropy(probabilities_FL: Tensor) -> Tensor:
    return -(probabilities_FL * (probabilities_FL + ENTROPY_EPSILON).log()).sum()


def _signs(values: Tensor) -> Tensor:
    """1 where a value is above 0, else -1."""
    return (values > 0).to(values.dtype) * 2 - 1


def _straight_through_signs(values: Tensor) -> Tensor:
    return values + (_signs(values) - values).detach()


def _log_probabilities(said_NC: Tensor) -> Tensor:
    """Logarithms of the probabilities of all 2^C codes of some bits, ``[N, 2^C]``."""
    num_bits = said_NC.shape[1]
    codes_VC = (
        torch.arange(2**num_bits, device=said_NC.device)[:, None] >> torch.arange(num_bits).to(said_NC.device)
    ) & 1
    entries_VC = (codes_VC * 2 - 1).to(said_NC.dtype)
    return (2 * said_NC @ entries_VC.t() / TEMPERATURE).log_softmax(dim=-1)
