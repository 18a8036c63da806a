"""Scores of one model on the recordings that ship: every benchmark once, offline, in minutes on a CPU.

Every step is a command that a user types as well; each is printed before it runs. What is complete is not made again::

    python benchmarks/sample_scores.py --output-dir runs/scores
    python benchmarks/sample_scores.py --model runs/first/model --audio-tokenizer my-tokenizer --output-dir runs/scores

The clips are few: the figures show that a model works and where it fails, and do not rank models.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from audiollm.benchmarks import attribute_control, mmar, mmau, mmsu, reconstruction, seed_tts, sound_classes, stability
from audiollm.benchmarks.codes import files
from audiollm.benchmarks.codes.features import load_encoder
from audiollm.benchmarks.harness.actions import Actions
from audiollm.benchmarks.harness.identity import check_identity
from audiollm.benchmarks.leaderboard.board import build_leaderboard
from audiollm.benchmarks.leaderboard.page import write_pages
from audiollm.benchmarks.questions.actions import CustomSetConfig
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.benchmarks.questions.run import QuestionRun
from audiollm.data.audio.writing import wav_file
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_lines import Record, read_json_lines, write_json_lines
from audiollm.data.labelling.by_rules import label_by_rules
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.environment import find_device
from audiollm.program import run_program

LANGUAGE: Final = "en"
QUESTION_ACTIONS = {"mmau": mmau.ACTIONS, "mmar": mmar.ACTIONS, "mmsu": mmsu.ACTIONS}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SampleScoresConfig:
    """What is scored."""

    output_dir: str = "runs/scores"
    """Folder for data and results; the leaderboard is ``results/leaderboard.md`` in it."""
    model: str = "mini"
    """Audio-LLM folder or Hub id."""
    audio_tokenizer: str = "mini"
    """Audio tokenizer folder or Hub id, for reconstruction, clustering, probing and stability."""
    judge: str | None = None
    """Who hears gender, age and emotion, see ``audiollm bench attribute-control``; pitch and speed are measured."""
    prompt: str = "sap-1"
    """How questions are asked."""
    limit: int | None = None
    """Only so many questions of each set, and so many clips of speech."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the spoken texts."""


@dataclass(frozen=True)
class Step:
    """One command."""

    command: list[str]
    """As it is typed after ``audiollm``."""
    run: Callable[[], object]


def bench_step(benchmark: str, actions: Actions, config: Any, action: str = "run") -> Step:
    """Does something with a benchmark; the command names what the config does not leave at its default."""
    flags = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            flags += [f"--{field.name.replace('_', '-')}", shown]
    named = [] if action == "run" else [action]
    return Step(["bench", benchmark, *named, *flags], partial(actions[action], config))


def run_all(config: SampleScoresConfig) -> None:
    """Makes the data, runs the harnesses and builds the leaderboard.

    Args:
        config: what is scored.

    Raises:
        ValueError: if the folder holds the scores of another model or setting.
        OSError: if a checkpoint or a file is missing.
    """
    output = Path(config.output_dir)
    check_identity(output, {name: value for name, value in asdict(config).items() if name != "output_dir"})
    for step in itertools.chain(data_steps(output, config.audio_tokenizer), score_steps(output, config)):
        sys.stdout.write(f"\n$ audiollm {shlex.join(step.command)}\n")
        sys.stdout.flush()
        step.run()


def data_steps(output: Path, tokenizer: str) -> Iterator[Step]:
    """What makes the data that are not there yet: labels, questions, a list of texts to speak, codes.

    A step may read what the one before has made, so each is to be run before the next one is asked for.
    """
    data = output / "data"
    for folder in (data, output / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    labels, codes = data / "labels.jsonl", output / "results" / "codes.jsonl"  # beside the figures made of them
    if not labels.exists():
        yield Step(["label", str(SAMPLE_FOLDER), str(labels)], partial(label_by_rules, SAMPLE_FOLDER, labels))
    for name, benchmark in BENCHMARKS.items():
        if not (data / name / benchmark.file_names[0]).exists():
            made = CustomSetConfig(data=str(labels), split="test", output_dir=str(data / name))
            yield bench_step(name, QUESTION_ACTIONS[name], made, "make")
    tested = [record for record in read_json_lines(labels) if record["split"] == "test"]
    sounds, speech = data / "sounds.jsonl", data / "speech.jsonl"
    write_json_lines(sounds, [record for record in tested if record["sound_type"] == "sound"])
    write_json_lines(speech, [record for record in tested if record.get("language") == LANGUAGE])
    write_meta(list(read_json_lines(speech)), data / "seed-tts")
    if not codes.exists():
        command = ["tokenize", str(sounds), str(codes), "--audio-tokenizer", tokenizer]
        yield Step(command, lambda: tokenize_corpus(sounds, load_encoder(tokenizer, find_device()), codes))


def write_meta(records: Sequence[Record], folder: Path) -> None:
    """Writes a list as SEED-TTS has it: each text in the voice of the record before, and the text's own recording.

    Args:
        records: of speech, with audio and text.
        folder: gets ``meta.lst`` and the recordings as WAV.
    """
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    lines, places = [], []
    for number, record in enumerate(records):
        places.append(f"wavs/{number:03d}.wav")
        (folder / places[-1]).write_bytes(wav_file(record["audio"]))
    for number, record in enumerate(records):
        prompt = records[number - 1]
        lines.append(f"{number:03d}|{prompt['text']}|{places[number - 1]}|{record['text']}|{places[number]}")
    with atomic_write(folder / "meta.lst") as file:
        file.write("".join(line + "\n" for line in lines))


def score_steps(output: Path, config: SampleScoresConfig) -> Iterator[Step]:
    """Every harness, and the leaderboard of what they wrote."""
    data, results = output / "data", output / "results"
    for name, actions in QUESTION_ACTIONS.items():
        asked = QuestionRun(
            model=config.model,
            data=str(data / name),
            prompt=config.prompt,
            output_dir=str(results / name),
            limit=config.limit,
        )
        yield bench_step(name, actions, asked)
    spoken = seed_tts.SeedTTSConfig(
        model=config.model,
        meta=str(data / "seed-tts" / "meta.lst"),
        language=LANGUAGE,
        seeds=config.seeds,
        output_dir=str(results / "seed-tts"),
        limit=config.limit,
    )
    yield bench_step("seed-tts", seed_tts.ACTIONS, spoken)
    controlled = attribute_control.AttributeControlConfig(
        model=config.model, output_dir=str(results / "attribute-control"), judge=config.judge
    )
    yield bench_step("attribute-control", attribute_control.ACTIONS, controlled)
    kept = reconstruction.ReconstructionConfig(
        audio_tokenizers=(config.audio_tokenizer,),
        data=str(data / "speech.jsonl"),
        output_dir=str(results / "reconstruction"),
        limit=config.limit,
    )
    yield bench_step("reconstruction", reconstruction.ACTIONS, kept)
    clustered = files.ClusteringConfig(codes=str(results / "codes.jsonl"), output=str(results / "clustering.json"))
    yield bench_step("clustering", files.ACTIONS, clustered)
    labels = str(data / "labels.jsonl")
    probed = sound_classes.SoundClassesConfig(
        data=labels, audio_tokenizer=config.audio_tokenizer, sound_type="sound", output=str(results / "probing.json")
    )
    yield bench_step("probing", sound_classes.ACTIONS, probed)
    stable = stability.StabilityConfig(
        data=labels, audio_tokenizer=config.audio_tokenizer, split="test", output=str(results / "stability.json")
    )
    yield bench_step("stability", stability.ACTIONS, stable)
    yield Step(["report", str(results)], partial(report, results))


def report(results: Path) -> None:
    """Writes the leaderboard of the results, and warns of what it could not read or trace."""
    board = build_leaderboard(results)
    for path in write_pages(board, results / "leaderboard"):
        sys.stdout.write(f"{path}\n")
    for file in board.unread:
        logger.warning("not read: %s: %s", file.path, file.reason)
    for problem in board.trace_problems:
        logger.warning("not traceable: %s", problem)


if __name__ == "__main__":
    run_program(SampleScoresConfig, run_all, level=logging.WARNING)
