"""StableToken in training: how it starts, and what its voters need to know of a whole update.

The entropy of the codebook is that of all frames of an update, so an update of several passes is heard twice: once to
add up what the voters give each code, and once to learn.
"""
# Shapes: K voters, F codes of the first half of the bits, L of the last.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from audiollm.data.sampling import seed_of
from audiollm.tokenizer.supervision.stabletoken import SupervisedStableToken

from .batches import TokenizerBatch
from .config import VOTE_SETTINGS, TokenizerTrainingConfig, settings_given

# Settings and what StableTokenConfig calls them.
_CONFIG_NAMES = {
    "pooling_position": "pooling_position",
    "encoder_layers": "encoder_layers",
    "commit_coefficient": "quantize_commit_coefficient",
    "num_clean_voters": "num_clean_input",
    "num_voters": "num_voters",
    "sample_entropy_weight": "sample_minimization_weight",
    "codebook_entropy_weight": "batch_maximization_weight",
    "consensus_weight": "quantize_consensus_coefficient",
    "norm_after_quantizer": "layernorm_after_quantize",
}
_SAME_NAMES = ("codebook_size", "pooling_kernel_size", "decoder_layers")


def voting_from_whisper(
    source: Path | str, config: TokenizerTrainingConfig, quantize_position: int
) -> SupervisedStableToken:
    """Makes a StableToken of a Whisper model, and its decoder beside it.

    Raises:
        ValueError: if the settings do not fit it.
    """
    given = settings_given(config.audio_tokenizer)
    settings = {name: given[name] for name in _SAME_NAMES if name in given}
    settings |= {theirs: given[name] for name, theirs in _CONFIG_NAMES.items() if name in given}
    return SupervisedStableToken.from_whisper(source, quantize_position=quantize_position, seed=config.seed, **settings)


def change_vote(model: SupervisedStableToken, config: TokenizerTrainingConfig) -> None:
    """Gives a checkpoint's quantizer the settings of this run; anything else of it cannot be changed.

    Raises:
        ValueError: naming settings that cannot, or do not fit.
    """
    given = settings_given(config.audio_tokenizer)
    free = (*VOTE_SETTINGS, "dropout", "kind")
    if fixed := [f"audio_tokenizer.{name}={given[name]}" for name in given if name not in free]:
        raise ValueError(
            f"{', '.join(fixed)}: {config.start_from} is a training checkpoint, which brings its own; remove them, or "
            "start from a Whisper model"
        )
    values, codebook = model.tokenizer.config, model.tokenizer.codebook
    for name in VOTE_SETTINGS:
        if name in given:
            setattr(values, _CONFIG_NAMES[name], given[name])
    if not 1 <= values.num_clean_input <= values.num_voters:
        raise ValueError(
            f"audio_tokenizer.num_clean_voters={values.num_clean_input}: {config.start_from} has {values.num_voters} "
            "voters, use 1 or more, and no more than these"
        )
    codebook.num_clean = values.num_clean_input
    codebook.sample_weight = values.sample_minimization_weight
    codebook.batch_weight = values.batch_maximization_weight
    codebook.commitment_weight = values.quantize_commit_coefficient
    codebook.consensus_weight = values.quantize_consensus_coefficient


def check_noise(model: SupervisedStableToken, config: TokenizerTrainingConfig) -> None:
    """Refuses to degrade clips that no voter would hear.

    Raises:
        ValueError: naming both settings.
    """
    values = model.tokenizer.config
    if config.augmentation.probability and values.num_clean_input == values.num_voters:
        raise ValueError(
            f"audio_tokenizer.num_clean_voters={values.num_clean_input} of {values.num_voters} voters: none is left to "
            "hear the clips that augmentation.probability degrades; lower it, or set augmentation.probability: 0"
        )


def vote_of_update(
    accelerator: Accelerator,
    config: TokenizerTrainingConfig,
    model: SupervisedStableToken,
    step: int,
    batches: Sequence[TokenizerBatch],
    num_frames: int,
    autocast: torch.autocast,
) -> dict[str, Any]:
    """What all passes of an update have in common, as arguments of `SupervisedStableToken.encode`.

    Args:
        accelerator: the run's processes; all must call it.
        config: the run.
        model: the model itself.
        step: the update; with the seed it decides who hears the clean clips.
        batches: this process's passes.
        num_frames: of the update, all processes together.
        autocast: the precision of the run.
    """
    voters = model.tokenizer.codebook.num_voters
    # Not torch's own generator: the processes draw alike, however much each has drawn before.
    order = torch.from_numpy(np.random.default_rng(seed_of(config.seed, step, "voters")).permutation(voters))
    means = None
    if len(batches) * accelerator.num_processes > 1 and num_frames:
        with autocast:
            sums = [_probability_sums(model, batch.to(accelerator.device), order) for batch in batches]
        total = accelerator.reduce(torch.stack(sums).sum(dim=0), "sum")
        means = (total / num_frames).float()
        if not bool(means.isfinite().all()):
            means = None  # a pass that is no number must spoil its own loss alone, by which it is found
    return {"voter_order": order, "mean_probabilities": means}


def _probability_sums(model: SupervisedStableToken, batch: TokenizerBatch, order: Tensor) -> Tensor:
    """float64 ``[K, F, L]``: sums over an update must not depend on how it is cut into passes and processes."""
    sums = model.tokenizer.probability_sums(batch.input_features, batch.attention_mask, batch.noisy_features, order)
    return sums.double()
