"""A few spoken commands: an Audio-LLM is fine-tuned on them until it understands them, noise and telephone included.

There is one recording of each command, so copies that are degraded differently stand for saying it again: the model
learns from some, and is asked about others.
"""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiollm.benchmarks.metrics import load_metric
from audiollm.data.audio.augmentation import AugmentationConfig, augment
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.writing import save_audio
from audiollm.data.corpora.clips import Clip
from audiollm.data.files.json_lines import write_json_lines
from audiollm.modeling import AudioLLM
from audiollm.prompts import instruction
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.recipes.launching import launch_trainer

TASK = "transcribe"
MAX_NEW_TOKENS = 48
DEGRADATION = AugmentationConfig(probability=1.0)


@dataclass(frozen=True, kw_only=True)
class CommandSettings:
    """How much is learned, from how little."""

    num_commands: int = 8
    """Recordings; the shortest ones that are asked for."""

    copies_to_learn_from: int = 3
    """Degraded copies of each beside the recording itself."""

    max_steps: int = 40
    """Updates of training/sft.py."""


@dataclass(frozen=True)
class UnderstoodCommands:
    """What became of it.

    Attributes:
        rows: said, before and after, a row per command.
        word_error_rates: over the copies that were not learned from, "before" and "after", as shares.
        model_folder: the fine-tuned Audio-LLM.
    """

    rows: list[dict[str, str]]
    word_error_rates: dict[str, float]
    model_folder: Path


def choose_commands(clips: Sequence[Clip], count: int) -> list[Clip]:
    """The shortest English clips, whose words and files do not repeat."""
    english = [clip for clip in clips if clip.sound_type == "speech" and clip.language == "en" and clip.text]
    return sorted(english, key=lambda clip: (clip.duration_seconds, clip.id))[:count]


def degraded_copy(clip: Clip, path: Path, copy: int) -> Path:
    """Writes the clip as it sounds with noise, in a room, through a codec or at another level; ``copy`` decides how."""
    waveform, sample_rate = load_audio(clip.audio)
    seed = np.random.default_rng([copy, *clip.id.encode()])
    degraded = augment(waveform, sample_rate, DEGRADATION, seed)
    save_audio(path, degraded / degraded.abs().max().clamp_min(1.0), sample_rate)
    return path


def question_about(audio: Path) -> dict[str, Any]:
    """The user's turn about a recording."""
    part = {"type": "audio", "path": str(audio)}
    return {"role": "user", "content": [part, {"type": "text", "text": instruction(TASK)}]}


def teach_commands(
    model: str, clips: Sequence[Clip], folder: Path, settings: CommandSettings, seed: int = 0
) -> UnderstoodCommands:
    """Fine-tunes a model on commands, and asks it about copies that it has not heard, before and after.

    Args:
        model: the Audio-LLM, "mini" or a folder.
        clips: recordings that the commands are chosen from.
        folder: a new folder for copies, records and the run.
        settings: how much.
        seed: of the training's order.
    """
    folder.mkdir(parents=True)
    commands = choose_commands(clips, settings.num_commands)
    records, unheard = [], []
    for clip in commands:
        name = clip.id.replace("/", "_")
        copies = range(settings.copies_to_learn_from)
        recordings = [Path(clip.audio), *(degraded_copy(clip, folder / f"{name}_{n}.wav", n) for n in copies)]
        unheard.append(degraded_copy(clip, folder / f"{name}_unheard.wav", settings.copies_to_learn_from))
        for number, recording in enumerate(recordings):
            messages = [question_about(recording), {"role": "assistant", "content": clip.text}]
            records.append({"id": f"{name}/{number}", "task": TASK, "messages": messages})
    write_json_lines(folder / "commands.jsonl", records)
    before = answers(AudioLLM.from_pretrained(model), unheard)
    launch_trainer(
        "sft.py",
        "demo_commands.yaml",
        *("--model", model, "--train_data", str(folder / "commands.jsonl"), "--output_dir", str(folder / "sft")),
        *("--max_steps", str(settings.max_steps), "--seed", str(seed)),
    )
    model_folder = folder / "sft" / MODEL_FOLDER
    after = answers(AudioLLM.from_pretrained(model_folder), unheard)
    texts = [str(clip.text) for clip in commands]
    wer = load_metric("wer")
    rates = {
        name: wer.compute(predictions=heard, references=texts)["wer"]
        for name, heard in (("before", before), ("after", after))
    }
    rows = [{"said": text, "before": old, "after": new} for text, old, new in zip(texts, before, after, strict=True)]
    return UnderstoodCommands(rows, rates, model_folder)


def answers(model: AudioLLM, recordings: Sequence[Path]) -> list[str]:
    """What the model understands of each recording."""
    return model.chat([[question_about(path)] for path in recordings], max_new_tokens=MAX_NEW_TOKENS).texts
