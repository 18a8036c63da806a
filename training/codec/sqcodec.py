"""An SQCodec learns: the numbers of its latents are rounded from the first update on, and nothing is fitted.

Its authors (UniAudio 2.0, arXiv:2602.04683; first SimpleSpeech, arXiv:2406.02328) released weights and a model, and
neither a trainer nor its settings. Theirs are the network and the rounding, with a gradient that passes straight
through. Ours are the scale of its fresh encoder, the losses and all weights: distances of spectrograms and waveforms,
and discriminators as DAC has them (Kumar et al., 2023, arXiv:2306.06546), by which most codecs of this kind learn.
"""
# Shapes: B segments, N samples, K numbers of a frame, T frames, L levels.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.quantizer.deferred import sum_over_ranks
from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.zoo.sqcodec.configuration import NUM_LEVELS, SQCodecConfig
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

from .config import CodecTrainingConfig
from .objective import CodecObjective
from .start import scale_to_sound

ALARMING_SHARE = 0.5
"""Of a latent's numbers: so many must be collapsed for an alarm. A few may well be of no use."""


class SQCodecObjective(CodecObjective):
    """See `CodecObjective`; it has no loss of its own.

    Args:
        config: the run, of such a codec.
        device: the run's.
    """

    model: SQCodec

    def __init__(self, config: CodecTrainingConfig, device: torch.device) -> None:
        assert isinstance(config.tokenizer, SQCodecConfig)
        super().__init__(SQCodec(config.tokenizer).to(device), config, first_step_with_codes=1)
        self._counts_KL = self._no_counts()

    def _no_counts(self) -> Tensor:
        return torch.zeros(self.model.num_codebooks, NUM_LEVELS, device=self.model.device)

    def forward(self, waveforms_BN: Tensor, positions_B: Tensor, with_codes: bool) -> tuple[Tensor, dict[str, Tensor]]:
        latents_BDT = self.model.latents(waveforms_BN)
        if self.training:
            self._counts_KL += level_counts(self.model.codes_of(latents_BDT.detach()))
        return self.model.sound(latents_BDT)[:, : waveforms_BN.shape[1]], {}

    def start(self, waveforms_BN: Tensor) -> None:
        scale_to_sound(self.model.encoder, waveforms_BN)

    def after_update(self, with_codes: bool) -> dict[str, Any]:
        sum_over_ranks(self._counts_KL)
        perplexities = [float(perplexity_of(row)) for row in self._counts_KL]
        self._counts_KL = self._no_counts()
        return {"mean_perplexity": sum(perplexities) / len(perplexities), "least_perplexity": min(perplexities)}

    def given_back(self, waveform_1N: Tensor, with_codes: bool) -> tuple[Tensor, Tensor | None]:
        whole_1N = F.pad(waveform_1N, (0, -waveform_1N.shape[1] % self.model.frame_samples))
        latents_1DT = self.model.latents(whole_1N)
        return self.model.sound(latents_1DT), self.model.codes_of(latents_1DT)[0]

    def collapse(self, line: Mapping[str, Any]) -> str | None:
        # A single level has a perplexity of 1, which of so few would not look like nothing.
        above = 1 + self.config.collapse_alarm * (min(NUM_LEVELS, line["num_frames"]) - 1)
        perplexities = line["perplexity"]
        collapsed = sum(one < above for one in perplexities)
        if collapsed < ALARMING_SHARE * len(perplexities):
            return None
        return (
            f"{collapsed} of the {len(perplexities)} numbers of a latent have hardly more than one of {NUM_LEVELS} "
            f"levels in {line['num_frames']} held-out frames (a perplexity below {above:.2f}): lower learning_rate, or "
            "use a smaller tokenizer.latent_hidden_dim"
        )


def level_counts(codes_BKT: Tensor) -> Tensor:
    """How often each number has each level, float32 ``[K, L]``."""
    num_codebooks = codes_BKT.shape[1]
    firsts_K1 = torch.arange(num_codebooks, device=codes_BKT.device)[:, None] * NUM_LEVELS
    counts = torch.bincount((codes_BKT + firsts_K1).flatten(), minlength=num_codebooks * NUM_LEVELS)
    return counts.view(num_codebooks, NUM_LEVELS).float()
