"""Whole runs on a mixture: killed and gone on with, and on other numbers of processes."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from audiollm.training import sft
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.loop.errors import ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.sft import train

from .finished_runs import assert_same_weights, metrics_of, weights_of

SFT = "training/sft.py"
BY_TOKENS = {"global_batch_size": 64, "tokens_per_update": 500, "tokens_per_pass": 250, "packing": "pack"}
PROGRAM = """
import os, signal, sys
from audiollm.training import sft
update = sft._update
def dies(run, step, batches):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(run, step, batches)
sft._update = dies
from audiollm.program import run_program
run_program(sft.SFTConfig, sft.train)
"""


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    """Clips in two files, of which one record is bad, and chats."""
    draw = random.Random(0)
    (tmp_path / "clips").mkdir()
    for shard in range(2):
        codes = [[draw.randrange(64) for _ in range(draw.randrange(3, 9))] for _ in range(9)]
        records = [{"id": f"{shard}-{number}", "codes": codes[number], "text": "red"} for number in range(9)]
        records[4].pop("text")
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "clips" / f"{shard}.jsonl").write_text(text)
    chat = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"id": f"c{n}", **chat}) + "\n" for n in range(5)))
    sources = [{"data": "clips", "tasks": ["transcribe"], "weight": 2}, {"data": "chats.jsonl", "weight": 1}]
    settings = {"sources": sources, "shuffle": 5, "on_bad": "skip"}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "mix.yaml")


def skipped(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "skipped_train.jsonl").read_text().splitlines()]


def test_killed_and_resumed_equals_uninterrupted_record_for_record(make_config, mixture, tmp_path, monkeypatch) -> None:
    """SIGKILL before the fifth update; the last checkpoint is from the third."""
    trained: dict[str, list[list[list[str]]]] = {}

    def spied(run, step, batches):
        ids = [[record.record_id for record in batch] for batch in batches]
        trained.setdefault(Path(run.config.output_dir).name, []).append(ids)
        return original(run, step, batches)

    original = sft._update
    monkeypatch.setattr(sft, "_update", spied)
    lora = LoRASettings(r=2, dropout=0.2, target_modules=("q_proj", "v_proj"))
    settings = {"train_data": mixture, "lora": lora, "save_every": 3, "max_steps": 8}
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    config = make_config(output_dir=str(tmp_path / "killed"), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    command = [sys.executable, "-c", PROGRAM, "--config", str(tmp_path / "config.json")]
    assert subprocess.run(command, capture_output=True).returncode == -9
    train(make_config(output_dir=str(tmp_path / "killed"), resume="latest", **settings))
    assert trained["killed"] == trained["straight"][3:]
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "straight")
    assert_same_weights(tmp_path / "killed", tmp_path / "straight")
    lines = skipped(tmp_path / "straight")
    assert skipped(tmp_path / "killed") == lines
    assert sum(line.get("skipped", 0) for line in metrics_of(tmp_path / "straight")) == len(lines) > 0
    sources = json.loads((tmp_path / "straight" / "run.json").read_text())["data"]["sources"]
    assert sources["clips"]["num_records"] == 18


def test_updates_of_a_token_budget_are_full_and_resumed_to_the_same_bits(make_config, mixture, tmp_path) -> None:
    settings = {"train_data": mixture, "save_every": 2, "max_steps": 7, "keep_checkpoints": 9, **BY_TOKENS}
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    lines = metrics_of(tmp_path / "straight")
    assert all(350 < line["tokens"] <= 500 for line in lines)
    assert sum(line.get("skipped", 0) for line in lines) == len(skipped(tmp_path / "straight")) > 0
    assert all(line["epoch"] < other["epoch"] for line, other in itertools.pairwise(lines))
    checkpoint = tmp_path / "straight" / "checkpoints" / "step_000004"
    train(make_config(output_dir=str(tmp_path / "resumed"), resume=str(checkpoint), **settings))
    assert metrics_of(tmp_path / "resumed") == lines[4:]
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")
    again = tmp_path / "resumed" / "checkpoints" / "step_000006"
    train(make_config(output_dir=str(tmp_path / "again"), resume=str(again), **settings))
    assert metrics_of(tmp_path / "again") == lines[6:]


def test_another_mixture_is_another_run(make_config, mixture, tmp_path) -> None:
    train(make_config(train_data=mixture, max_steps=1))
    changed = Path(mixture).read_text().replace("weight: 2", "weight: 5")
    Path(mixture).write_text(changed)
    with pytest.raises(ResumeError, match=r"data\.sources\.clips\.weight: 2\.0 → 5\.0"):
        train(make_config(train_data=mixture, max_steps=2, resume="latest"))


def test_a_large_file_is_sampled_before_the_first_update(make_config, assets, tmp_path, caplog) -> None:
    with caplog.at_level("INFO"):
        train(make_config(max_steps=1, check_records=7))
    assert "7 of 40 records are looked at before the first update (check_records)" in caplog.text


def test_records_that_only_later_turn_out_too_long_are_left_out_and_said(make_config, assets, tmp_path, caplog) -> None:
    records = [json.loads(line) for line in assets.train.read_text().splitlines()]
    records[1]["messages"][0]["content"][1]["text"] = "x" * 400
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    train(make_config(train_data=str(path), max_steps=5, check_records=2, on_too_long="skip"))
    assert "skipped: " in caplog.text
    assert "train.jsonl:2: " in caplog.text


@pytest.mark.multiprocess
@pytest.mark.parametrize("by", [{}, BY_TOKENS], ids=["records", "tokens"])
def test_two_processes_make_the_same_updates_and_go_on_where_one_stopped(
    make_config, mixture, launches, tmp_path, by
) -> None:
    settings = {"train_data": mixture, "save_every": 3, **by}
    alone = make_config(output_dir=str(tmp_path / "alone"), **settings)
    train(alone)
    both = make_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", SFT, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    stopped = tmp_path / "stopped"
    shutil.copytree(alone.output_dir, stopped)
    shutil.rmtree(stopped / "model")
    shutil.rmtree(stopped / "checkpoints" / "step_000006")
    (stopped / "checkpoints" / "latest").write_text("step_000003")
    resumed = make_config(output_dir=str(stopped), resume="latest", num_processes=2, **settings)
    ended = launches.run("ddp", SFT, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "going on with 2 processes in place of 1" in ended.stderr
    expected = metrics_of(alone.output_dir)
    for run in (both, resumed):
        for line, other in zip(expected, metrics_of(run.output_dir), strict=True):
            same = ("step", "epoch", "target_tokens", "skipped", "learning_rate")
            assert {name: line.get(name) for name in same} == {name: other.get(name) for name in same}
            assert other["loss"] == pytest.approx(line["loss"], rel=1e-4)
        assert sorted(map(str, skipped(Path(run.output_dir)))) == sorted(map(str, skipped(Path(alone.output_dir))))
    one, other = weights_of(alone.output_dir), weights_of(resumed.output_dir)
    assert all(one[name].allclose(other[name], rtol=1e-2, atol=1e-3) for name in one)
