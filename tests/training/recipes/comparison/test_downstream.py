"""The same LLM on every tokenizer: one training for each seed, none twice, and a reason where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import psutil
import pytest
import yaml

from audiollm.benchmarks.codes.features import REASON
from audiollm.benchmarks.comparison.cells import Cell
from audiollm.benchmarks.comparison.running import TokenizerFacts
from audiollm.benchmarks.comparison.study import SpeechSettings, Study, UnderstandingSettings, read_study
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.program import ProgramError
from audiollm.training.recipes.comparison import downstream
from audiollm.training.recipes.comparison.downstream import train_downstream
from audiollm.training.recipes.comparison.sample_data import with_sample_questions, with_sample_speech

ONE_CODEBOOK = {"tokens_per_second": 25, "frame_rate": 25, "codebook_sizes": [64]}
TOKENIZERS = {
    name: TokenizerFacts(f"codes of {name}", None, {"can_decode": name == "speaking", **ONE_CODEBOOK})
    for name in ("speaking", "listening", "floor")
}


def record(text: str) -> dict[str, Any]:
    question = [{"type": "audio", "path": "x.wav"}, {"type": "text", "text": "What is it?"}]
    return {"id": text, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folder = tmp_path / "study"
    folder.mkdir()
    write_json_lines(folder / "train.jsonl", [record("a dog"), record("a bell")])
    (folder / "meta.lst").write_text("a|b|c.wav|d\n")
    (folder / "mmau").mkdir()
    questions = [{"id": "1", "question": "?", "choices": ["a dog", "a bell"], "answer": "a dog", "task": "sound"}]
    (folder / "mmau" / BENCHMARKS["mmau"].file_names[0]).write_text(
        json.dumps([one | {"audio_id": "x.wav", "category": "c", "difficulty": "easy"} for one in questions])
    )
    content = {
        "tokenizers": {"speaking": "owner/speaking", "listening": "owner/listening", "floor": {"mulaw": None}},
        "data": {"all": "train.jsonl"},
        "measures": {"codes": "all"},
        "downstream": {
            "seeds": [0, 1],
            "understanding": {"train_data": "train.jsonl", "mmau": "mmau", "max_steps": 8, "limit": 1},
            "speech": {"train_data": "train.jsonl", "meta": "meta.lst", "settings": {"learning_rate": 0.5}},
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(folder / "study.yaml")


class Programs:
    """Stands for the processes: writes what they would leave."""

    def __init__(self) -> None:
        self.configs: list[dict[str, Any]] = []
        self.commands: list[list[str]] = []
        self.fail_at: int | None = None

    def run(self, command: Sequence[str], num_threads: int | None, log: TextIO) -> None:
        if self.fail_at == len(self.commands):
            self.fail_at = None
            raise subprocess.CalledProcessError(1, list(command))
        self.commands.append(list(command))
        options = dict(pairwise(command))
        if command[1] == "audiollm.training.sft":
            self._train(json.loads(Path(options["--config"]).read_text()))
        elif command[1] == "audiollm.benchmarks.seed_tts":
            figures = {name: {"mean": 0.5} for name in ("wer", "wer_missing_as_wrong", "similarity", "mos")}
            result = {"summary": figures | {"num_missing": 0}, "n_items": 1, "judges": {}}
            Path(options["--output-dir"]).mkdir(parents=True)
            (Path(options["--output-dir"]) / "result.json").write_text(json.dumps(result))
        else:
            assert int(options["--max-failures"]) > 10**6  # an LLM that says nothing stops no study
            Path(options["--output-dir"]).mkdir(parents=True)
            write_json_lines(
                Path(options["--output-dir"]) / "predictions.jsonl",
                [{"kind": "run", "benchmark": "mmau"}, {"kind": "failure", "id": "1", "error": "the reply is empty"}],
            )

    def _train(self, config: dict[str, Any]) -> None:
        self.configs.append(config)
        run = Path(config["output_dir"])
        (run / "model").mkdir(parents=True)
        (run / "checkpoints").mkdir()
        lines = [{"event": "train", "step": 1, "loss": 3.0, "seconds": 2.0, "tokens": 10}]
        write_json_lines(run / "metrics.jsonl", [*lines, {"event": "eval", "step": 1, "loss": 2.0 + config["seed"]}])


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    found = Programs()
    monkeypatch.setattr(downstream, "run_logged", found.run)
    return found


def train(study: Study, folder: Path, tokenizers: Mapping[str, TokenizerFacts] = TOKENIZERS) -> dict[Cell, Any]:
    return train_downstream(study, folder, tokenizers, lambda _: None)


def test_every_tokenizer_is_trained_alike(study: Study, tmp_path: Path, programs: Programs) -> None:
    found = train(study, tmp_path / "run")
    assert len(programs.configs) == 2 * (2 + 1)  # two seeds, of which one tokenizer speaks as well
    own = ("audio_tokenizer", "output_dir")
    alike = [
        {name: value for name, value in config.items() if name not in own}
        for config in programs.configs
        if config["seed"] == 0 and config["max_steps"] == 8
    ]
    assert alike[0] == alike[1]
    assert {config["audio_tokenizer"] for config in programs.configs} == {"owner/speaking", "owner/listening"}
    assert found[Cell("listening", "understanding", "seed1")]["loss"] == 3.0
    assert found[Cell("listening", "understanding", "seed1")]["mmau"]["all"] == 0.0  # it said nothing
    assert found[Cell("speaking", "speech", "seed0")]["tts"]["similarity"] == 0.5
    assert next(config for config in programs.configs if config["max_steps"] != 8)["learning_rate"] == 0.5


def test_what_cannot_be_trained_has_its_reason(study: Study, tmp_path: Path, programs: Programs) -> None:
    found = train(study, tmp_path / "run")
    assert "no decoder" in found[Cell("listening", "speech", "seed0")][REASON]
    assert "floor" in found[Cell("floor", "understanding", "seed0")][REASON]


def test_the_llms_of_a_seed_are_one_and_of_another_seed_another(
    study: Study, tmp_path: Path, programs: Programs
) -> None:
    train(study, tmp_path / "run")
    assert len({config["model"] for config in programs.configs}) == 2
    first, second = (tmp_path / "run" / "llm" / f"seed{seed}" / "model.safetensors" for seed in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_a_stopped_study_trains_nothing_twice(study: Study, tmp_path: Path, programs: Programs) -> None:
    programs.fail_at = 5  # in the middle of a training
    with pytest.raises(ProgramError, match=r"seed 0: `-m audiollm.* failed with exit status 1; .*log\.txt"):
        train(study, tmp_path / "run")
    train(study, tmp_path / "run")
    assert len(programs.commands) == len({tuple(command) for command in programs.commands})
    num_commands = len(programs.commands)
    train(study, tmp_path / "run")
    assert len(programs.commands) == num_commands


def test_a_step_that_a_killed_call_has_left_behind_is_waited_for(
    study: Study, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    script = "import time; time.sleep(1)"
    left = subprocess.Popen([sys.executable, "-c", script, "--config", "x"])
    monkeypatch.setattr(downstream, "_PAUSE_SECONDS", 0.01)
    settings = study.downstream
    assert settings is not None
    run = downstream._Run(
        downstream._Training("speaking", "understanding", 0), settings.parts[0][1], tmp_path, study, told.append
    )
    run._wait_for_the_same(["-c", script, "--config", "x"])
    assert left.poll() is not None or psutil.Process(left.pid).status() == psutil.STATUS_ZOMBIE
    left.wait()
    assert [line for line in told if f"process {left.pid}" in line]
    run._wait_for_the_same(["-c", script, "--config", "x"])  # nobody is there
    assert len(told) == 1


def test_a_training_of_other_settings_is_not_gone_on_with(study: Study, tmp_path: Path, programs: Programs) -> None:
    programs.fail_at = 1  # trained, and not scored
    with pytest.raises(ProgramError):
        train(study, tmp_path / "run")
    assert study.downstream is not None
    (name, part), *others = study.downstream.parts
    longer = replace(study.downstream, parts=((name, replace(part, max_steps=9)), *others))
    with pytest.raises(ValueError, match=r"settings\.max_steps \(8, now 9\); write the settings back, or delete"):
        train(replace(study, downstream=longer), tmp_path / "run")


def test_weights_are_removed_when_their_figures_are_there(study: Study, tmp_path: Path, programs: Programs) -> None:
    train(study, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("checkpoints"))
    assert not list((tmp_path / "run" / "trained").rglob("model"))


def test_another_tokenizer_is_refused(study: Study, tmp_path: Path, programs: Programs) -> None:
    train(study, tmp_path / "run")
    other = TOKENIZERS | {"speaking": TokenizerFacts("other codes", None, TOKENIZERS["speaking"].facts)}
    with pytest.raises(ValueError, match="was begun with another tokenizer"):
        train(study, tmp_path / "run", other)


def test_the_sample_gives_data_for_both_parts(study: Study, tmp_path: Path) -> None:
    assert study.downstream is not None
    (_, understanding), (_, speech) = study.downstream.parts
    assert isinstance(understanding, UnderstandingSettings)
    assert isinstance(speech, SpeechSettings)
    asked = with_sample_questions(replace(understanding, mmar="given"), tmp_path)
    assert asked.prompt is None  # each set asks in its own words
    assert (asked.mmau, asked.mmar) == (understanding.mmau, "given")
    assert asked.mmsu == str(tmp_path / "mmsu")
    assert Path(asked.mmsu).is_dir()
    train_ids = {one["id"].rpartition("/")[0] for one in read_json_lines(asked.train_data)}
    held_out_ids = {one["id"].rpartition("/")[0] for one in read_json_lines(str(asked.eval_data))}
    assert train_ids
    assert held_out_ids
    assert not train_ids & held_out_ids
    replies: dict[str, set[str]] = {}
    for one in read_json_lines(asked.train_data):
        (reply,) = one["messages"][1]["content"]
        replies.setdefault(one["prompt"], set()).add(reply["text"])
    assert set(replies) == {"mmau-authors-1", "mmar-texts-1", "mmsu-authors-1"}
    assert replies["mmsu-authors-1"] <= set("ABCD")  # as the scorer of MMSU reads
    assert "music" in replies["mmau-authors-1"]
    spoken = with_sample_speech(speech, tmp_path)
    assert len(list(read_json_lines(spoken.train_data))) == 40
    assert spoken.meta == speech.meta
    assert (tmp_path / "seed-tts" / "meta.lst").is_file()
