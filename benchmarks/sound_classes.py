"""Clustering and probing of labelled clips, encoded once: whether a tokenizer's codes tell kinds of sound apart.

Clips come from records with ``audio``, a class and ``split`` (probes learn from ``train`` and are judged on the rest),
or from a folder of ESC-50 (each of its five folds is held out once). Examples::

    python benchmarks/sound_classes.py --audio-tokenizer folder --data clips.jsonl --sound-type sound --output all.json
    python benchmarks/sound_classes.py --audio-tokenizer folder --data ESC-50-master --esc10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiollm.benchmarks.codes.clips import LabelledClip, read_labelled_clips
from audiollm.benchmarks.codes.clustering import Distance, Scale, cluster_codes
from audiollm.benchmarks.codes.features import encode_clips, load_encoder
from audiollm.benchmarks.codes.probing import probe_by_parts
from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import recorded_config, show_figures
from audiollm.data.audio.channels import Mono
from audiollm.environment import find_device

TRAINING_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class SoundClassesConfig:
    """One tokenizer on one set of labelled clips."""

    data: str
    """Clips with a class: records with ``audio``, a class and ``split`` (JSONL, parquet, …), or a folder of ESC-50."""
    audio_tokenizer: str = "mini"
    """Audio tokenizer folder or Hub id; the embedded one if not given."""
    label_key: str = "label"
    """Key of the class in the records."""
    sound_type: str | None = None
    """Use clips of this sound type only, such as ``sound``."""
    esc10: bool = False
    """Of ESC-50, only the ten classes of ESC-10."""
    min_clips_per_class: int = 2
    """Leave out smaller classes."""
    mono: Mono = "first"
    """Which channel is heard: the first one, as tokenizers hear it, or the mean of all."""
    scale: Scale = "l1"
    """Of the histograms that are clustered."""
    distance: Distance = "euclidean"
    """Of the silhouette."""
    num_restarts: int = 10
    """Starts of k-means, of which the tightest counts."""
    num_seeds: int = 10
    """Runs of k-means, to show the spread."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the figures as JSON."""


def measure(config: SoundClassesConfig) -> dict[str, Any]:
    """Encodes the clips, clusters the held-out ones (all, where there are folds) and probes; returns all figures.

    Raises:
        ValueError: if there are no such clips.
    """
    clips = read_labelled_clips(
        config.data,
        label_key=config.label_key,
        sound_type=config.sound_type,
        min_clips_per_class=config.min_clips_per_class,
        esc10=config.esc10,
    )
    device = find_device(config.device)
    audio_tokenizer = load_encoder(config.audio_tokenizer, device)
    features = encode_clips(
        audio_tokenizer,
        [clip.load(audio_tokenizer.sample_rate, config.mono) for clip in clips],
        audio_tokenizer.sample_rate,
    )
    labels = [clip.label for clip in clips]
    parts = held_out_parts(clips)
    clustered = sorted({int(clip) for _, held_out in parts for clip in held_out}) or list(range(len(clips)))
    clustering = cluster_codes(
        [features.codes[clip] for clip in clustered],
        [labels[clip] for clip in clustered],
        features.codebook_size,
        num_codebooks=features.num_codebooks,
        scale=config.scale,
        distance=config.distance,
        num_restarts=config.num_restarts,
        seeds=range(config.num_seeds),
    )
    results = {
        "config": recorded_config(config, device=device, tokenizer_fingerprint=audio_tokenizer.fingerprint()),
        "clustering": asdict(clustering),
        "codes": {
            "codebook_size": features.codebook_size,
            "usage": features.usage,
            "perplexity": features.perplexity,
            "quantization_error": features.quantization_error,
        },
    }
    for name in features.vectors if parts else ():
        results[f"probes on {name}"] = probe_by_parts(features.vectors[name], labels, parts)
    return results


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


def run(config: SoundClassesConfig) -> None:
    """What simple readers tell from a tokenizer's codes, entries and features: linear, logistic and nearest neighbours.

    Histograms of codes are clustered too.
    """
    show_figures(measure(config), config.output, as_json=config.json)


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="sound_classes")
