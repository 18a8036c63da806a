"""StableToken under supervision: some voters hear the clip, the others the same clip with noise, and one text follows.

After StableToken (arXiv:2509.22220): one stage, from a Whisper model, with the vote in place from the first update on.
"""
# Shapes: B clips, M mel bins, F mel frames, T tokens, K voters, Q figures of a vote.

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from audiollm.tokenizer.quantizer.lfq import unanimity
from audiollm.tokenizer.zoo.stabletoken.configuration import StableTokenConfig
from audiollm.tokenizer.zoo.stabletoken.model import StableToken, StableTokenOutput

from .model import SupervisedModel, SupervisedOutput

VOTE_LOSSES = ("per_sample_entropy", "codebook_entropy", "commitment_loss", "consensus_loss")
VOTE_FIGURES = ("unanimity", *VOTE_LOSSES)
"""Of a vote: the share of bits on which all voters agree, and in training its losses."""


class SupervisedStableToken(SupervisedModel):
    """StableToken and the text decoder that trains it.

    Args:
        tokenizer: the part that is kept after training.
        decoder: the part that supervises it.
        text: turns text into the decoder's token ids and back; saved with the model if given.
    """

    tokenizer_class = StableToken
    config_class = StableTokenConfig
    architecture = "WhisperLFQForConditionalGeneration"
    tokenizer: StableToken

    def encode(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None,
        *,
        noisy_features: Tensor | None = None,
        voter_order: Tensor | None = None,
        mean_probabilities: Tensor | None = None,
    ) -> StableTokenOutput:
        """Runs the encoder and the vote; the last three are for training, see `StableToken.forward`.

        Args:
            input_features: log-mel features, ``[B, M, F]``.
            attention_mask: 1 for valid mel frames, ``[B, F]``; None if all are.
            noisy_features: of the same clips with noise, ``[B, M, F]``.
            voter_order: int64 ``[K]``, the first of which hear the clean features.
            mean_probabilities: of the codes in the whole update.
        """
        output: StableTokenOutput = self.tokenizer(
            input_features,
            attention_mask,
            noisy_features,
            voter_order=voter_order,
            mean_probabilities=mean_probabilities,
        )
        return output

    def _sums(self, encoded: StableTokenOutput, frame_mask_BT: Tensor) -> SupervisedOutput:
        hidden_BTD, features_BTD = encoded.last_hidden_state, encoded.pre_quantizer_hidden
        assert hidden_BTD is not None
        assert features_BTD is not None
        assert encoded.voter_projections is not None
        num_frames = frame_mask_BT.sum()
        zero = hidden_BTD.new_zeros((), dtype=torch.float32)
        losses = [zero if (one := getattr(encoded, name)) is None else one.detach() for name in VOTE_LOSSES]
        agreed = (unanimity(encoded.voter_projections.detach()) * frame_mask_BT).sum()
        quantizer_loss = encoded.quantizer_loss if self.config.use_commit_loss else None
        return SupervisedOutput(
            text_loss_sum=zero,
            num_targets=num_frames.new_zeros(()),
            # A mean over this pass's frames: a sum again, so that passes of any sizes add up to their update's mean.
            quantizer_loss_sum=zero if quantizer_loss is None else quantizer_loss * num_frames,
            num_frames=num_frames,
            encoder_last_hidden_state=hidden_BTD,
            frame_mask=frame_mask_BT,
            codes=encoded.codes,
            quantization_error=zero,
            feature_power=(features_BTD.detach().float().square().mean(dim=-1) * frame_mask_BT).sum(),
            vote_sums=torch.stack([agreed, *(one * num_frames for one in losses)]),
        )

    def export_tokenizer(self, folder: str | Path) -> None:
        """Writes the tokenizer alone in the released layout: no text decoder."""
        self.tokenizer.save_tokenizer(Path(folder))
