"""Every harness once, on the recordings that ship: from clips to a leaderboard, offline, in minutes on a CPU.

Everything is a command that a user types as well; each is printed before it runs. What is complete is not made again::

    python benchmarks/sample_scores.py --output runs/scores
    python benchmarks/sample_scores.py --model runs/first/model --tokenizer my-tokenizer --output runs/scores

The clips are few: the figures show that a model works and where it fails, and do not rank models.
"""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli, set_parsing_settings

from audiollm.benchmarks.models.endpoint import wav_file
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.benchmarks.speech.synthesis import check_identity
from audiollm.cli.app import main as audiollm
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER
from audiollm.data.files.atomic import atomic_write

LANGUAGE = "en"

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SampleScoresConfig:
    """What is scored."""

    output: str = "runs/scores"
    """Folder for data and results; the leaderboard is ``results/leaderboard.md`` in it."""
    model: str = "mini"
    """Audio-LLM folder or Hub id."""
    tokenizer: str = "mini"
    """Audio tokenizer folder or Hub id, for reconstruction, clustering, probing and stability."""
    judge: str | None = None
    """Who hears gender, age and emotion, see ``audiollm bench attribute-control``; pitch and speed are measured."""
    prompt: str = "sap-1"
    """How questions are asked."""
    limit: int | None = None
    """Only so many questions of each set, and so many clips of speech."""
    seeds: str = "0,1,2"
    """Of the spoken texts."""


def measure(config: SampleScoresConfig) -> None:
    """Makes the data, runs the harnesses and builds the leaderboard.

    Args:
        config: what is scored.

    Raises:
        ValueError: if the folder holds the scores of another model or setting.
        OSError: if a checkpoint or a file is missing.
    """
    output = Path(config.output)
    check_identity(output, {name: value for name, value in asdict(config).items() if name != "output"})
    for command in itertools.chain(data_commands(output, config.tokenizer), score_commands(output, config)):
        sys.stdout.write(f"\n$ audiollm {shlex.join(command)}\n")
        sys.stdout.flush()
        audiollm(command)


def data_commands(output: Path, tokenizer: str) -> Iterator[list[str]]:
    """What makes the data that are not there yet: labels, questions, a list of texts to speak, codes."""
    data = output / "data"
    for folder in (data, output / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    labels, codes = data / "labels.jsonl", output / "results" / "codes.jsonl"  # beside the figures made of them
    if not labels.exists():
        yield ["label", str(SAMPLE_FOLDER), str(labels)]
    for name, benchmark in BENCHMARKS.items():
        if not (data / name / benchmark.file_names[0]).exists():
            yield ["bench", name, "make", "--data", str(labels), "--split", "test", "--output", str(data / name)]
    tested = [record for record in _read(labels) if record["split"] == "test"]
    sounds, speech = data / "sounds.jsonl", data / "speech.jsonl"
    _write(sounds, [record for record in tested if record["sound_type"] == "sound"])
    _write(speech, [record for record in tested if record.get("language") == LANGUAGE])
    write_meta(_read(speech), data / "seed-tts")
    if not codes.exists():
        yield ["tokenize", str(sounds), str(codes), "--audio-tokenizer", tokenizer]


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


def score_commands(output: Path, config: SampleScoresConfig) -> Iterator[list[str]]:
    """Every harness, and the leaderboard of what they wrote."""
    data, results = output / "data", output / "results"
    limit = [] if config.limit is None else ["--limit", str(config.limit)]
    for name in BENCHMARKS:
        yield [
            "bench", name, "--model", config.model, "--data", str(data / name), "--prompt", config.prompt,
            "--output", str(results / name), *limit,
        ]  # fmt: skip
    yield [
        "bench", "seed-tts", "--model", config.model, "--meta", str(data / "seed-tts" / "meta.lst"),
        "--language", LANGUAGE, "--seeds", config.seeds, "--output", str(results / "seed-tts"), *limit,
    ]  # fmt: skip
    judge = [] if config.judge is None else ["--judge", config.judge]
    yield [
        "bench",
        "attribute-control",
        "--model",
        config.model,
        "--output",
        str(results / "attribute-control"),
        *judge,
    ]
    yield [
        "bench", "reconstruction", "--tokenizers", config.tokenizer, "--data", str(data / "speech.jsonl"),
        "--output", str(results / "reconstruction"), *limit,
    ]  # fmt: skip
    yield ["bench", "clustering", "--codes", str(results / "codes.jsonl"), "--output", str(results / "clustering.json")]
    records = ["--data", str(data / "labels.jsonl"), "--tokenizer", config.tokenizer]
    yield ["bench", "probing", *records, "--sound-type", "sound", "--output", str(results / "probing.json")]
    yield ["bench", "stability", *records, "--split", "test", "--output", str(results / "stability.json")]
    yield ["report", str(results)]


def _read(path: Path) -> list[Record]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _write(path: Path, records: Sequence[Record]) -> None:
    with atomic_write(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def main() -> None:
    """Command line."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    measure(auto_cli(SampleScoresConfig, as_positional=False))


if __name__ == "__main__":
    main()
