"""Options of every command: called as they are typed, each classified, and refused where they have no effect."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from audiollm.benchmarks.harness.actions import config_class
from audiollm.cli import main
from audiollm.cli.app import COMMANDS
from audiollm.cli.bench import BENCHMARKS, benchmark_actions
from audiollm.program import as_option

ROOT = Path(__file__).resolve().parents[3]
BENCH_ACTIONS = [(name, action) for name in BENCHMARKS for action in benchmark_actions(name)]
ALL_COMMANDS = [[name] for name in COMMANDS] + [["bench", *both] for both in BENCH_ACTIONS]
URL = "http://localhost:9/v1"


def stops(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status of a command that must end early, and what it says."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out + captured.err


def options_of(benchmark: str, action: str) -> dict[str, dataclasses.Field[Any]]:
    """What the parser of an action takes: the fields of its config."""
    return {field.name: field for field in dataclasses.fields(config_class(benchmark_actions(benchmark)[action]))}


# --- options are called as they are typed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [[name] for name in COMMANDS] + [["bench", *both] for both in BENCH_ACTIONS], ids=" ".join
)
def test_help_and_errors_call_options_as_the_pages_do(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, shown = stops([*words, "--help"], capsys)
    assert status == 0
    assert not re.findall(r"--\w+_\w+", shown)
    with_values = re.findall(r"^  (--[a-z-]+) [A-Z_{\[]", shown, re.MULTILINE)
    for option in with_values[:2]:
        status, shown = stops([*words, option], capsys)  # its value is missing
        assert status in (1, 2)
        assert not re.findall(r"--\w+_\w+", shown)
        assert "arguments are required" in shown or option in shown


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tokenize", "a", "b.jsonl", "--batch_size", "many"], "error: --batch-size:"),
        (["tokenize", "a", "b.jsonl", "--num-shards", "2", "--shard", "3"], "error: --shard=3 of --num-shards=2: "),
        (["speak", "Hi."], "arguments are required: --output"),
        (["reconstruct"], "arguments are required: source, output"),
        (["bench", "stability", "--data", "d", "--max_clips", "0"], "error: --max-clips=0: use 1 or more"),
        (["bench", "seed-tts", "--meta", "m"], "arguments are required: --language, --output-dir"),
        (["bench", "mmau", "judge", "--judge", URL], "arguments are required: --predictions, --output"),
    ],
)
def test_usage_errors_name_what_can_be_typed(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, shown = stops(words, capsys)
    assert status in (1, 2)
    assert named in shown


# --- options of benchmarks have an effect, or are refused -------------------------------------------------------------

LOCAL_RUN = ["--data", "no-data"]
ENDPOINT_RUN = ["--data", "no-data", "--model", URL]
LOG = ["--predictions", "@log", "--data", "@questions"]
JUDGING = ["--predictions", "no.json", "--output", "no-out.json"]
GOLDEN_CASES = str(ROOT / "tests/fixtures/golden/esc_clustering/cases.json")
SEED_TTS = ["--meta", "no.lst", "--language", "en", "--output-dir", "no-out"]
RECONSTRUCTION = ["--audio-tokenizers", "mini", "--data", "no.jsonl", "--output-dir", "no-out"]
ALWAYS: list[list[str]] = []
"""An option that has an effect whatever stands beside it."""

RUN = {
    **dict.fromkeys(
        ["data", "model", "output_dir", "limit", "shuffle_options", "prompt", "max_new_tokens", "temperature", "mono",
         "require_known_data", "keep_going", "max_failures"],
        ALWAYS,
    ),
    "device": [[*ENDPOINT_RUN, "--device", "cpu"]],
    "dtype": [[*ENDPOINT_RUN, "--dtype", "float32"]],
    "batch_size": [[*ENDPOINT_RUN, "--batch-size", "2"]],
    "endpoint_model": [[*LOCAL_RUN, "--endpoint-model", "x"], [*LOCAL_RUN, "--model", "m", "--endpoint-model", "x"]],
    "endpoint_key": [[*LOCAL_RUN, "--endpoint-key", "X"]],
    "concurrency": [[*LOCAL_RUN, "--concurrency", "2"]],
    "shots": [[*LOCAL_RUN, "--shots", "2"]],
    "shots_data": [[*LOCAL_RUN, "--shots-data", "x"]],
}  # fmt: skip
IDLE_OVERWRITE = "--overwrite"
QUESTIONS = {
    "run": RUN,
    "predict": RUN,
    "make": dict.fromkeys(["data", "output_dir", "split", "per_clip", "seed"], ALWAYS),
    "check": {
        **dict.fromkeys(["data", "output", "limit", "require_known_data", "json"], ALWAYS),
        "overwrite": [["--data", "no-data", IDLE_OVERWRITE]],
    },
    "export": {
        **dict.fromkeys(["predictions", "data", "output", "overwrite"], ALWAYS),
        "prediction_key": [[*LOG, "--output", "@o.json", "--prediction-key", "x"]],
    },
    "score": {
        **dict.fromkeys(["predictions", "data", "mode", "output", "require_known_data", "seed", "json"], ALWAYS),
        "overwrite": [["--predictions", "no.json", IDLE_OVERWRITE]],
        "prediction_key": [[*LOG, "--prediction-key", "x"]],
    },
    "judge": {
        **dict.fromkeys(
            ["predictions", "judge", "output", "data", "votes", "temperature", "seed", "concurrency", "max_failures",
             "json"],
            ALWAYS,
        ),
        "prediction_key": [],  # refused where the log is read, by what `score` and `export` ask, too
        "device": [[*JUDGING, "--judge", URL, "--device", "cpu"]],
        "judge_model": [[*JUDGING, "--judge", "hf:no", "--judge-model", "x"]],
        "judge_key": [[*JUDGING, "--judge", "hf:no", "--judge-key", "X"]],
        "max_retries": [[*JUDGING, "--judge", "hf:no", "--max-retries", "1"]],
        "timeout_seconds": [[*JUDGING, "--judge", "hf:no", "--timeout-seconds", "1"]],
    },
}  # fmt: skip
WAVS = [*SEED_TTS, "--wavs", "no-wavs"]
PAIRS = {
    **dict.fromkeys(["pairs", "output", "json"], ALWAYS),
    "overwrite": [["--pairs", "no.json", "--language", "en", IDLE_OVERWRITE]],
}
CLASSIFIED: dict[str, dict[str, dict[str, list[list[str]]]]] = {
    **dict.fromkeys(["mmau", "mmar", "mmsu"], QUESTIONS),
    "seed-tts": {
        "run": {
            **dict.fromkeys(
                ["meta", "language", "output_dir", "wavs", "limit", "asr", "similarity", "mos", "mono", "device",
                 "json"],
                ALWAYS,
            ),
            "model": [[*WAVS, "--model", "m"]],
            "seeds": [[*WAVS, "--seeds", "1,2"]],
            "voice": [[*WAVS, "--voice", "prompt"]],
            "speaker_encoder": [
                [*WAVS, "--speaker-encoder", "x"],
                [*SEED_TTS, "--voice", "none", "--speaker-encoder", "x"],
                [*SEED_TTS, "--voice", "prompt", "--speaker-encoder", "x"],
            ],
            "max_seconds": [[*WAVS, "--max-seconds", "3"]],
            "temperature": [[*WAVS, "--temperature", "0.5"]],
            "steps": [[*WAVS, "--steps", "3"]],
            "attempts": [[*WAVS, "--attempts", "3"]],
        },
        "wer": PAIRS | {"language": ALWAYS},
        "sim": PAIRS | {"overwrite": [["--pairs", "no.json", IDLE_OVERWRITE]]},
    },
    "reconstruction": {
        "run": {
            **dict.fromkeys(
                ["audio_tokenizers", "data", "output_dir", "split", "limit", "mono", "metrics", "voice", "steps",
                 "seed", "asr", "similarity", "mos", "device", "json"],
                ALWAYS,
            ),
            "language": [[*RECONSTRUCTION, "--asr", "none", "--language", "fr"]],
            "speaker_encoder": [[*RECONSTRUCTION, "--voice", "none", "--speaker-encoder", "x"]],
        }
    },
    "transcription": {
        "run": dict.fromkeys(
            ["model", "data", "output_dir", "split", "limit", "language", "prompt", "max_new_tokens",
             "longest_seconds", "batch_size", "asr", "mono", "dtype", "device", "json"],
            ALWAYS,
        )
    },
    "attribute-control": {
        "run": {
            **dict.fromkeys(["output_dir", "model", "texts", "seed", "max_seconds", "device", "json"], ALWAYS),
            "judge": [["--output-dir", "no-out", "--attributes", "pitch,speed", "--judge", URL]],
            "attributes": [["--output-dir", "@out", "--attributes", "gender,pitch"]],
        }
    },
    "clustering": {
        "run": {
            **dict.fromkeys(
                ["codes", "output", "codebook_size", "scale", "distance", "num_clusters", "num_restarts", "num_seeds",
                 "json"],
                ALWAYS,
            ),
            "overwrite": [["--codes", "no.jsonl", IDLE_OVERWRITE]],
            "label_key": [["--codes", GOLDEN_CASES, "--label-key", "x"]],
        }
    },
    "probing": {
        "run": {
            **dict.fromkeys(
                ["data", "audio_tokenizer", "sound_type", "min_clips_per_class", "mono", "scale", "distance",
                 "num_restarts", "num_seeds", "device", "output", "json"],
                ALWAYS,
            ),
            "overwrite": [["--data", "no.jsonl", IDLE_OVERWRITE]],
            "label_key": [["--data", "@esc50", "--label-key", "x"]],
            "esc10": [["--data", "@clips.jsonl", "--esc10"]],
        }
    },
    "stability": {
        "run": {
            **dict.fromkeys(
                ["data", "audio_tokenizer", "split", "max_clips", "conditions", "mono", "device", "output", "json"],
                ALWAYS,
            ),
            "overwrite": [["--data", "no.jsonl", IDLE_OVERWRITE]],
            "seed": [["--data", "no.jsonl", "--conditions", "mp3,shift:0.5", "--seed", "1"]],
        }
    },
}  # fmt: skip


@pytest.mark.parametrize(("benchmark", "action"), BENCH_ACTIONS)
def test_every_option_is_classified(benchmark: str, action: str) -> None:
    assert CLASSIFIED[benchmark][action].keys() == options_of(benchmark, action).keys()


def idle_combinations() -> Iterator[tuple[str, str, str, list[str]]]:
    for benchmark, actions in CLASSIFIED.items():
        for action, options in actions.items():
            for option, combinations in options.items():
                yield from ((benchmark, action, option, words) for words in combinations)


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A log of predictions with its questions, clips that are no ESC-50, and a folder that is."""
    golden = next((ROOT / "tests/fixtures/golden/mmau").glob("predictions.json*"))
    (tmp_path / "questions").write_bytes(golden.read_bytes())
    (tmp_path / "log").write_text('{"kind": "run", "benchmark": "mmau"}\n')
    (tmp_path / "clips.jsonl").write_text('{"audio": "a.wav", "label": "x"}\n')
    (tmp_path / "esc50" / "meta").mkdir(parents=True)
    (tmp_path / "esc50" / "meta" / "esc50.csv").write_text("filename,fold,category,esc10\n")
    return tmp_path


@pytest.mark.parametrize(
    ("benchmark", "action", "option", "words"),
    [one for one in idle_combinations() if one[0] not in ("mmar", "mmsu")],  # of one code with mmau
)
def test_an_option_without_effect_is_refused_by_name(
    benchmark: str, action: str, option: str, words: list[str], places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(places.rglob("*"))
    placed = [str(places / word[1:]) if word.startswith("@") else word for word in words]
    status, shown = stops(["bench", benchmark, action, *placed], capsys)
    assert status == 1
    last = shown.strip().splitlines()[-1]
    assert re.search(rf"error: .*({as_option(option)}\b|{option})", last), last
    assert set(places.rglob("*")) - before <= {places / "out", *(places / "out").rglob("*")}


@pytest.mark.parametrize(("benchmark", "action"), BENCH_ACTIONS)
def test_every_option_is_read_by_the_code_of_its_action(benchmark: str, action: str) -> None:
    """By name, as ``config.option`` or through ``getattr``; what no line reads cannot have an effect."""
    function = benchmark_actions(benchmark)[action]
    module = inspect.getfile(function.func if isinstance(function, partial) else function)
    sources = [Path(module), Path(inspect.getfile(config_class(function)))]
    read = set()
    for node in (node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
            read.add(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "clustering" in module:
            read.add(node.value)  # its settings are handed on by name
    assert options_of(benchmark, action).keys() - read <= {"overwrite"}  # which the harness reads, for all
