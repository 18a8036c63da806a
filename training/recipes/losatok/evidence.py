"""LoSATok's claims at a small scale, with several seeds. One command; what is complete is not made again.

python -m audiollm.training.recipes.losatok.evidence --output_dir runs/losatok_evidence
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from audiollm.program import run_program
from audiollm.training.recipes.launching import console, open_recipe_folder
from audiollm.training.recipes.run_facts import facts_of_run

from .bottlenecks import FitSettings
from .data import Task, read_tasks
from .divergence import measure_divergence
from .generation import Generation, GenerationSettings, measure_generation
from .report import write_tables
from .small_features import measure_small_features
from .trainings import Tokenizers, TokenizerSettings

Part = Literal["small", "kl", "dit"]


@dataclass(frozen=True, kw_only=True)
class LoSATokEvidenceConfig:
    """The experiment."""

    output_dir: str = "runs/losatok_evidence"
    """Folder for everything the run makes."""

    parts: tuple[Part, ...] = ("small", "kl", "dit")
    """What to measure: features made small; tokenizers of several weights of the divergence; and transformers that make
    latents, mel or features."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights and order of all that is trained."""

    speech: str = "corpus:asterisk"
    """Records with audio, language and split, or corpus: and the name of a corpus, which is built in the folder."""

    sounds: str = "corpus:game-sounds"
    """Records with audio, label and split, or a corpus."""

    max_clips: int = 300
    """Of either, evenly spread."""

    teachers: tuple[str, ...] = ("mini", "whisper-tiny.en", "whisper-base")
    """Whose features are made small, as semantic.teacher of train_losatok.py."""

    latent_sizes: tuple[int, ...] = (128, 32)
    """Sizes that they are made."""

    kl_weights: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1)
    """Weights of the divergence."""

    fit: FitSettings = field(default_factory=FitSettings)
    """Of SemBo, trained on features that are computed once."""

    kl: TokenizerSettings = field(default_factory=TokenizerSettings)
    """Of the tokenizers."""

    dit: GenerationSettings = field(default_factory=GenerationSettings)
    """Of the transformers."""

    num_threads: int | None = None
    """CPU threads. None: all."""

    def __post_init__(self) -> None:
        for name in ("parts", "seeds", "teachers", "latent_sizes", "kl_weights"):
            if not getattr(self, name) or len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}={list(getattr(self, name))}: give one or more, each once")


def run_evidence(config: LoSATokEvidenceConfig) -> dict[str, Any]:
    """Measures what is missing; writes ``results.json``, ``tables.md`` and ``curves.png``, and returns the results.

    They are written whenever there is more, so that what has come out can be looked at while the rest is under way.

    Raises:
        ValueError: the folder is of something else, or a cell of other settings; or a teacher or clips are missing.
        ProgramError: a training fails.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    # Each cell knows its settings; these are for telling folders apart.
    settings = {"max_clips": config.max_clips}
    started = time.perf_counter()
    with open_recipe_folder(Path(config.output_dir) / "evidence.json", settings) as folder:
        tasks = read_tasks(config.speech, config.sounds, config.max_clips, folder)
        results: dict[str, Any] = {
            **facts_of_run(config),
            "data": {
                task.name: {
                    "clips": len(task.clips),
                    "to_learn_from": sum(task.is_training()),
                    "classes": len({clip.label for clip in task.clips}),
                }
                for task in tasks
            },
        }
        for part in config.parts:
            for found in _measure(part, tasks, config, folder):
                results[part] = found
                write_tables(results | {"is_complete": False}, folder)
        results |= {"is_complete": True, "seconds_of_this_call": round(time.perf_counter() - started)}
        console.print(write_tables(results, folder))
    return results


def _measure(
    part: Part, tasks: Sequence[Task], config: LoSATokEvidenceConfig, folder: Path
) -> Iterator[Mapping[str, Any]]:
    tell = console.print
    if part == "small":
        yield from measure_small_features(
            tasks, config.teachers, config.latent_sizes, config.seeds, config.fit, folder, tell
        )
        return
    tokenizers = Tokenizers(tasks, config.kl, folder, config.num_threads)
    generation = Generation(tasks, tokenizers, config.dit, folder, tell)
    if part == "dit":
        yield from measure_generation(config.seeds, generation)
        return
    yield from measure_divergence(tasks, config.kl_weights, config.seeds, tokenizers, generation, folder, tell)


if __name__ == "__main__":
    run_program(LoSATokEvidenceConfig, run_evidence, name="losatok.evidence")
