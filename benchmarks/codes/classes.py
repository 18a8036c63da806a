"""What one tokenizer's codes or latents tell of the classes of clips: clustering and probing, of one encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiollm.data.audio.channels import Mono
from audiollm.tokenizer.base import AudioTokenizer

from .clips import LabelledClip
from .clustering import Distance, Scale, cluster_codes, cluster_vectors
from .features import LATENTS, NO_CODES, REASON, ClipFeatures, encode_clips
from .probing import probe_by_parts

TRAINING_SPLIT = "train"


def class_figures(
    audio_tokenizer: AudioTokenizer,
    clips: Sequence[LabelledClip],
    *,
    mono: Mono = "first",
    scale: Scale = "l1",
    distance: Distance = "euclidean",
    num_restarts: int = 10,
    num_seeds: int = 10,
) -> dict[str, Any]:
    """Encodes clips, clusters the held-out ones (all, where there are folds) and probes.

    Args:
        audio_tokenizer: any.
        clips: with their classes.
        mono: which channel is heard.
        scale: of the histograms that are clustered; of latents their means over frames are, as they are.
        distance: of the silhouette.
        num_restarts: starts of k-means, of which the tightest counts.
        num_seeds: runs of k-means.

    Returns:
        ``clustering``, ``codes`` (what is in use, or why there are none) and, where there are splits or folds,
        ``probes on histogram`` and on what else the tokenizer gives, or ``probes on latents``.

    Raises:
        ValueError: see `cluster_codes`.
        AudioError: a recording cannot be used.
    """
    rate = audio_tokenizer.sample_rate
    features = encode_clips(audio_tokenizer, [clip.load(rate, mono) for clip in clips], rate)
    labels = [clip.label for clip in clips]
    parts = held_out_parts(clips)
    clustered = sorted({int(clip) for _, held_out in parts for clip in held_out}) or list(range(len(clips)))
    settings: dict[str, Any] = {"distance": distance, "num_restarts": num_restarts, "seeds": range(num_seeds)}
    of_clustered = [labels[clip] for clip in clustered]
    if not features.has_codes:
        clustering = cluster_vectors(features.vectors[LATENTS][clustered], of_clustered, **settings)
    else:
        clustering = cluster_codes(
            [features.codes[clip] for clip in clustered],
            of_clustered,
            features.codebook_size,
            num_codebooks=features.num_codebooks,
            scale=scale,
            **settings,
        )
    figures = {"clustering": asdict(clustering), "codes": _codes_in_use(features)}
    for name in features.vectors if parts else ():
        figures[f"probes on {name}"] = probe_by_parts(features.vectors[name], labels, parts)
    return figures


def _codes_in_use(features: ClipFeatures) -> dict[str, Any]:
    if not features.has_codes:
        return {REASON: NO_CODES}
    return {
        "codebook_size": features.codebook_size,
        "usage": features.usage,
        "perplexity": features.perplexity,
        "quantization_error": features.quantization_error,
    }


def held_out_parts(clips: Sequence[LabelledClip]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions to learn from and to be judged on: a pair for each fold, or one for the splits; none without either."""
    folds = sorted({clip.fold for clip in clips if clip.fold is not None})
    if len(folds) > 1:
        inside = [np.array([clip.fold == fold for clip in clips]) for fold in folds]
    elif {clip.split == TRAINING_SPLIT for clip in clips} == {True, False}:
        inside = [np.array([clip.split != TRAINING_SPLIT for clip in clips])]
    else:
        inside = []
    return [(np.flatnonzero(~held_out), np.flatnonzero(held_out)) for held_out in inside]
