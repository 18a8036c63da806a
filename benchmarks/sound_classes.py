"""Whether a tokenizer's codes tell kinds of sound apart: clustering and probing of labelled clips, encoded once.

Clips come from records with ``audio``, a class and ``split`` (probes learn from ``train`` and are judged on the rest),
or from a folder of ESC-50 (each of its five folds is held out once). Examples::

    python benchmarks/sound_classes.py --tokenizer tokenizer --data clips.jsonl --sound_type sound --output classes.json
    python benchmarks/sound_classes.py --tokenizer tokenizer --data ESC-50-master --esc10 true
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jsonargparse import auto_cli, set_parsing_settings
from numpy.typing import NDArray

from audiollm.benchmarks.codes.clips import LabelledClip, read_labelled_clips
from audiollm.benchmarks.codes.clustering import Distance, Scale, cluster_codes
from audiollm.benchmarks.codes.probing import ProbeResult, knn_probe, linear_probe, logistic_probe
from audiollm.benchmarks.codes.views import view_clips
from audiollm.benchmarks.harness.figures import show_figures
from audiollm.tokenizer.modeling import UniAudioTokenizer

PROBES: dict[str, Callable[..., ProbeResult]] = {"linear": linear_probe, "logistic": logistic_probe, "knn": knn_probe}
TRAINING_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class SoundClassesConfig:
    """One tokenizer on one set of labelled clips."""

    tokenizer: str
    """Tokenizer: folder or Hub id."""
    data: str
    """Clips with a class: records with ``audio`` (JSONL, parquet, …), or a folder of ESC-50."""
    label_key: str = "label"
    """Key of the class in the records."""
    sound_type: str | None = None
    """Use clips of this sound type only, such as ``sound``."""
    esc10: bool = False
    """Of ESC-50, only the ten classes of ESC-10."""
    min_clips_per_class: int = 2
    """Leave out smaller classes."""
    scale: Scale = "l1"
    """Of the histograms that are clustered."""
    distance: Distance = "euclidean"
    """Of the silhouette."""
    num_restarts: int = 10
    """Starts of k-means, of which the tightest counts."""
    num_seeds: int = 10
    """Runs of k-means, to show the spread."""
    device: str = "cpu"
    """Where to encode."""
    output: str | None = None
    """File for the figures as JSON."""
    json: bool = False
    """Write the figures to standard output as JSON instead of tables."""


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
    tokenizer = UniAudioTokenizer.from_pretrained(config.tokenizer, encoder_only=True, decoder=False).eval()
    tokenizer.to(config.device)
    views = view_clips(tokenizer, [clip.load(tokenizer.sample_rate) for clip in clips], tokenizer.sample_rate)
    labels = [clip.label for clip in clips]
    parts = held_out_parts(clips)
    clustered = sorted({int(clip) for _, held_out in parts for clip in held_out}) or list(range(len(clips)))
    clustering = cluster_codes(
        [views.codes[clip] for clip in clustered],
        [labels[clip] for clip in clustered],
        views.codebook_size,
        num_codebooks=views.num_codebooks,
        scale=config.scale,
        distance=config.distance,
        num_restarts=config.num_restarts,
        seeds=range(config.num_seeds),
    )
    results = {
        "config": asdict(config) | {"tokenizer_fingerprint": tokenizer.fingerprint()},
        "clustering": asdict(clustering),
        "codes": {
            "codebook_size": views.codebook_size,
            "usage": views.usage,
            "perplexity": views.perplexity,
            "quantization_error": views.quantization_error,
        },
    }
    for view in views.vectors if parts else ():
        results[f"probes on {view}"] = probe_view(views.vectors[view], labels, parts)
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


def probe_view(
    vectors_CD: NDArray[np.float64],
    labels: Sequence[str],
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> dict[str, float]:
    """Accuracy of every probe, as the mean over the parts, beside that of the commonest class.

    Args:
        vectors_CD: one vector per clip, ``[C, D]``.
        labels: class of each clip.
        parts: positions to learn from and to be judged on.
    """
    figures: dict[str, list[float]] = {}
    for train, held_out in parts:
        given = vectors_CD[train], [labels[clip] for clip in train], vectors_CD[held_out], [labels[c] for c in held_out]
        for name, probe in PROBES.items():
            result = probe(*given)
            figures.setdefault(f"{name}_accuracy", []).append(result.accuracy)
            figures.setdefault(f"{name}_balanced_accuracy", []).append(result.balanced_accuracy)
        figures.setdefault("majority_accuracy", []).append(result.majority_accuracy)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def main() -> None:
    """Reads the flags and runs; user errors end in one message and exit status 1."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    config = auto_cli(SoundClassesConfig, as_positional=False)
    try:
        results: Mapping[str, Any] = measure(config)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"sound_classes: {error}")
    show_figures(results, config.output, as_json=config.json)


if __name__ == "__main__":
    main()
