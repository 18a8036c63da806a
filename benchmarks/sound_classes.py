"""Clustering and probing of labelled clips, encoded once: whether codes or latents tell kinds of sound apart.

Clips come from records with ``audio``, a class and ``split`` (probes learn from ``train`` and are judged on the rest),
or from a folder of ESC-50 (each of its five folds is held out once). Examples::

    python benchmarks/sound_classes.py --audio-tokenizer folder --data clips.jsonl --sound-type sound --output all.json
    python benchmarks/sound_classes.py --audio-tokenizer folder --data ESC-50-master --esc10
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiollm.benchmarks.codes.classes import class_figures
from audiollm.benchmarks.codes.clips import read_labelled_clips
from audiollm.benchmarks.codes.clustering import Distance, Scale
from audiollm.benchmarks.codes.features import NO_CODES, load_encoder
from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import recorded_config, show_figures
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.data.audio.channels import Mono
from audiollm.environment import find_device


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
    """Of the histograms that are clustered; latents are clustered as they are."""
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
        ValueError: if there are no such clips, or a setting has no effect.
    """
    clips = read_labelled_clips(
        config.data,
        label_key=config.label_key,
        sound_type=config.sound_type,
        min_clips_per_class=config.min_clips_per_class,
        esc10=config.esc10,
    )
    device = find_device(config.device)
    audio_tokenizer = load_encoder(config.audio_tokenizer, device, may_lack_codes=True)
    if audio_tokenizer.latent_size is not None:
        refuse_idle(config, ["scale"], f"with {config.audio_tokenizer}, which {NO_CODES}")
    figures = class_figures(
        audio_tokenizer,
        clips,
        mono=config.mono,
        scale=config.scale,
        distance=config.distance,
        num_restarts=config.num_restarts,
        num_seeds=config.num_seeds,
    )
    settled = {"device": device, "tokenizer_fingerprint": audio_tokenizer.fingerprint()}
    return {"config": recorded_config(config, **settled)} | figures


def run(config: SoundClassesConfig) -> None:
    """What simple readers tell from a tokenizer's codes, entries and features: linear, logistic and nearest neighbours.

    Histograms of codes, or means of latents, are clustered too.
    """
    show_figures(measure(config), config.output, as_json=config.json)


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="sound_classes")
