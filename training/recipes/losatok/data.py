"""Clips with classes, and the features that frozen teachers give of them, computed once and kept."""
# Shapes: T tokens of one clip, E feature size.

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.benchmarks.codes.classes import TRAINING_SPLIT
from audiollm.benchmarks.codes.clips import LabelledClip
from audiollm.benchmarks.comparison.recordings import read_recordings
from audiollm.benchmarks.comparison.study import DataSettings
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_lines import write_json_lines
from audiollm.tokenizer.losatok.configuration import SAMPLE_RATE, SemanticConfig
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.training.losatok.semantic_stage import high_features
from audiollm.training.losatok.start import open_teacher

LEAST_OF_A_CLASS = 6
_FEATURES = "features.safetensors"


@dataclass(frozen=True)
class Task:
    """Clips whose classes are to be told apart.

    Attributes:
        name: for tables.
        clips: with their classes; those of split ``train`` are learnt from.
        fingerprint: of the records and the choice.
    """

    name: str
    clips: list[LabelledClip]
    fingerprint: str

    def is_training(self) -> list[bool]:
        """Whether each clip is one to learn from."""
        return [clip.split == TRAINING_SPLIT for clip in self.clips]


def read_tasks(speech: str, sounds: str, max_clips: int, folder: Path) -> list[Task]:
    """Reads both sets of clips: speech by language (which in the packaged corpus is the voice, too), sounds by class.

    Args:
        speech: records with ``audio``, ``language`` and ``split``, or ``corpus:`` and the name of a corpus.
        sounds: records with ``audio``, ``label`` and ``split``, or a corpus.
        max_clips: of each.
        folder: of the run; corpora are built in it.

    Raises:
        RecordError: there are no clips, or none with classes.
        ValueError: one has none to learn from, or none to be judged on.
    """
    tasks = []
    for name, path, key in (("voice", speech, "language"), ("sound", sounds, "label")):
        settings = DataSettings(
            path=path, label_key=key, max_clips=max_clips, min_clips_per_class=LEAST_OF_A_CLASS, mono="first"
        )
        recordings = read_recordings(name, settings, folder)
        chosen = "\n".join([recordings.fingerprint, *(clip.id for clip in recordings.labelled)])
        task = Task(name, recordings.labelled, hashlib.sha256(chosen.encode()).hexdigest())
        if set(task.is_training()) != {True, False}:
            raise ValueError(f"{path}: a part of the clips must be of split train, and a part of another")
        tasks.append(task)
    return tasks


def identity_of(tasks: Sequence[Task]) -> dict[str, Any]:
    """What cells of these clips hold of them."""
    return {"tasks": {task.name: task.fingerprint for task in tasks}}


def record_id(task: Task, clip: LabelledClip) -> str:
    """The id of a clip in `write_manifest`'s records, unlike those of other tasks."""
    return f"{task.name}/{clip.id}"


def write_manifest(tasks: Sequence[Task], path: Path, *, training: bool, seconds: float = 0.2) -> None:
    """Writes the clips of all tasks, those to learn from or the others, as records that trainers read.

    Their captions are the words of their classes, as those of text to sound need one.

    Args:
        tasks: whose clips.
        path: of the file.
        training: which of them.
        seconds: shorter ones are left out.
    """
    records = [
        {
            "id": record_id(task, clip),
            "audio": str(Path(str(clip.audio.path)).resolve()),
            "caption": f"{task.name} {clip.label.replace('_', ' ')}",
        }
        for task in tasks
        for clip in task.clips
        if (clip.split == TRAINING_SPLIT) == training and len(clip.load(SAMPLE_RATE)) >= seconds * SAMPLE_RATE
    ]
    write_json_lines(path, records)


def features_of(source: str, task: Task, folder: Path, tell: Callable[[str], None]) -> list[Tensor]:
    """A teacher's features of a task's clips, float32 ``[T_i, E]`` each; computed if they are not in the folder.

    Args:
        source: the teacher, as ``semantic.teacher`` of ``training/train_losatok.py``.
        task: whose clips.
        folder: where features are kept.
        tell: hears of progress.

    Raises:
        ValueError: there is no such teacher.
    """
    kept = folder / name_of(source) / f"{task.name}-{task.fingerprint[:12]}"
    if not kept.is_dir():
        teacher = open_teacher(source)
        semantic = SemanticEncoder(SemanticConfig(feature_size=teacher.feature_size), teacher).eval()
        found = {}
        for number, clip in enumerate(task.clips):
            found[f"{number:06d}"] = high_features(semantic, clip.load(SAMPLE_RATE)[None])[0].half().contiguous()
            if number % 100 == 99:
                tell(f"{source}: features of {number + 1} of {len(task.clips)} clips ({task.name})")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(kept) as staging:
            save_file(found, Path(staging) / _FEATURES)
    stored = load_file(kept / _FEATURES)
    return [stored[name].to(torch.float32) for name in sorted(stored)]


def name_of(source: str) -> str:
    """What a teacher is called in tables and folders."""
    return Path(source).name
