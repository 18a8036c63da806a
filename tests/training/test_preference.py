"""Preference runs in one process: trl's trainers on our records."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from audiollm.data.conversation.loading import load_conversations
from audiollm.modeling import AudioLLM
from audiollm.program import run_program
from audiollm.training.alignment import methods
from audiollm.training.alignment.config import (
    DPOSettings,
    GRPOSettings,
    PreferenceConfig,
    PreferenceLoRA,
    RewardSettings,
)
from audiollm.training.alignment.records import Prompts, preference_pairs
from audiollm.training.alignment.reporting import line_of_metrics
from audiollm.training.alignment.rewards.base import Answer
from audiollm.training.alignment.rewards.registry import REWARDS
from audiollm.training.audio_llm.records import EncodedRecords
from audiollm.training.loop.errors import DataError, LaunchError, ResumeError
from audiollm.training.loop.stopping import RunStoppedError
from audiollm.training.preference import train

from .finished_runs import assert_same_weights, metrics_of, weights_of

needs_trl = pytest.mark.skipif(find_spec("trl") is None, reason="needs pip install 'audiollm[preference]'")
LENGTH = RewardSettings(name="length", options={"tokens": 2})


@pytest.fixture
def make_preference(assets: Any, tmp_path: Path) -> Callable[..., PreferenceConfig]:
    """A config of two short updates of GRPO; every setting can be changed."""

    def make(**changes: Any) -> PreferenceConfig:
        settings: dict[str, Any] = {
            "model": str(assets.audio_llm), "train_data": str(assets.train), "output_dir": str(tmp_path / "run"),
            "max_steps": 2, "global_batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "warmup_ratio": 0.0,
            "grpo": GRPOSettings(rewards=(LENGTH,), num_generations=4, max_new_tokens=5),
        }  # fmt: skip
        return PreferenceConfig(**(settings | changes))

    return make


@pytest.fixture
def pairs(assets: Any, tmp_path: Path) -> Path:
    """The training records, each with a worse answer."""
    records = [json.loads(line) for line in assets.train.read_text().splitlines()]
    for record in records:
        record["rejected"] = "no" if record["task"] == "classify" else {"role": "assistant", "content": "nothing"}
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def read(assets: Any) -> Callable[[Path], EncodedRecords]:
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor

    def encoded(path: Path) -> EncodedRecords:
        return EncodedRecords(load_conversations(path), processor, max_length=256, cache_tokens=10_000)

    return encoded


# --- runs -------------------------------------------------------------------------------------------------------------


@needs_trl
def test_two_updates_leave_a_whole_run_whose_model_loads(make_preference, assets, tmp_path):
    seen: list[Answer] = []

    def watching(sounds: Any) -> Any:
        return lambda answers: seen.extend(answers) or [sum(answer.token_ids) % 7 / 7 for answer in answers]

    REWARDS.register("watching", watching, replace=True)
    rewards = (RewardSettings(name="watching"), RewardSettings(name="form", weight=0.5))
    grpo = GRPOSettings(rewards=rewards, num_generations=4, max_new_tokens=5, modalities="text")
    summary = train(make_preference(grpo=grpo, save_every=1))
    run = tmp_path / "run"
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]["rewards"]) == {"watching", "form"}
    weighted = lines[0]["rewards"]["watching"]["mean"] + 0.5 * lines[0]["rewards"]["form"]["mean"]
    assert lines[0]["reward"] == pytest.approx(weighted)
    assert summary.loss == lines[-1]["loss"]
    record = json.loads((run / "run.json").read_text())
    assert record["launch"] == {"mode": "single", "num_processes": 1}
    assert record["data"]["num_records"] == 40
    assert (run / "curves.png").exists()
    assert "name: watching" in (run / "model" / "README.md").read_text()

    # Groups of four are of one record, and hold what may be drawn.
    assert len({answer.conversation.id for answer in seen[:4]}) == 1
    assert not any(answer.audio for answer in seen)
    trained, start = AudioLLM.from_pretrained(run), AudioLLM.from_pretrained(assets.audio_llm)
    assert trained.model.config.eos_token_id == start.model.config.eos_token_id  # trl had put its own in its place
    assert trained.model.generation_config.to_dict() == start.model.generation_config.to_dict()
    changed = [not torch.equal(one, other) for one, other in zip(trained.parameters(), start.parameters(), strict=True)]
    assert any(changed)


@needs_trl
def test_the_model_reads_the_very_ids_of_the_record(make_preference, assets, tmp_path, read, monkeypatch):
    """What a text spells stays text: by way of a string, the mark in the question would become one token."""
    record = json.loads(assets.train.read_text().splitlines()[0])
    record["messages"][0]["content"].append({"type": "text", "text": "<|im_end|><|audio_3|>"})
    path = tmp_path / "spelt.jsonl"
    path.write_text(json.dumps(record) + "\n")
    prompts: list[list[int]] = []
    made = methods.load_trl().GRPOTrainer._generate_single_turn

    def generate(self: Any, prompt_ids: list[list[int]], *rest: Any) -> Any:
        prompts.extend(prompt_ids)
        return made(self, prompt_ids, *rest)

    monkeypatch.setattr(methods.load_trl().GRPOTrainer, "_generate_single_turn", generate)
    train(make_preference(train_data=str(path), max_steps=1, global_batch_size=4))
    [expected] = Prompts(read(path), [0]).token_ids([0])
    assert prompts == [expected] * 4
    vocabulary = AudioLLM.from_pretrained(assets.audio_llm).vocabulary
    num_codes = len(record["messages"][0]["content"][0]["codes"])
    assert sum(int(vocabulary.is_code(torch.tensor(one))) for one in expected) == num_codes


@needs_trl
@pytest.mark.slow
def test_the_reward_rises(make_preference, tmp_path):
    """Half of what is drawn at random is even; that is all that counts here."""

    def share_of_even(sounds: Any) -> Any:
        return lambda answers: [sum(one % 2 == 0 for one in a.token_ids) / len(a.token_ids) for a in answers]

    REWARDS.register("even", share_of_even, replace=True)
    grpo = GRPOSettings(rewards=(RewardSettings(name="even"),), num_generations=8, max_new_tokens=5)
    config = make_preference(grpo=grpo, global_batch_size=32, micro_batch_size=32, max_steps=14, learning_rate=4e-2)
    train(config)
    rewards = [line["reward"] for line in metrics_of(tmp_path / "run")]
    assert sum(rewards[:3]) / 3 < 0.65
    assert sum(rewards[-3:]) / 3 > 0.8


@needs_trl
def test_pairs_move_the_model_towards_the_better_answers(make_preference, pairs, assets, tmp_path):
    lora = PreferenceLoRA(r=2)
    config = make_preference(
        grpo=None, dpo=DPOSettings(), train_data=str(pairs), eval_data=str(pairs), lora=lora, max_steps=6,
    )  # fmt: skip
    summary = train(config)
    assert summary.evaluation is not None
    assert summary.evaluation["rewards"]["margins"] > 0.05
    assert summary.evaluation["loss"] < metrics_of(tmp_path / "run")[0]["loss"]
    assert summary.best is not None
    assert summary.best.metric == "loss"
    adapted = AudioLLM.from_pretrained(tmp_path / "run" / "adapter")  # names the model it belongs to
    merged = weights_of(tmp_path / "run")
    for name, tensor in adapted.model.state_dict().items():
        if name in merged:
            torch.testing.assert_close(tensor, merged[name])


@needs_trl
@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(make_preference, tmp_path):
    settings = {"max_steps": 3, "save_every": 1, "keep_checkpoints": 3}
    train(make_preference(output_dir=str(tmp_path / "straight"), **settings))
    config = make_preference(**settings)

    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    def with_stop(*arguments: Any) -> Any:
        trainer = made(*arguments)
        trainer.add_callback(Stop())
        return trainer

    from audiollm.training import preference

    made, preference.grpo_trainer = preference.grpo_trainer, with_stop
    try:
        with pytest.raises(RunStoppedError, match=r"stopped as asked after update 2 of 3.*--resume latest"):
            train(config)
    finally:
        preference.grpo_trainer = made
    with pytest.raises(ValueError, match="already holds a run"):
        train(config)
    with pytest.raises(ResumeError, match=r"learning_rate: 0\.01 → 0\.5"):
        train(make_preference(resume="latest", learning_rate=0.5, **settings))
    train(make_preference(resume="latest", **settings))
    straight, resumed = (metrics_of(tmp_path / name) for name in ("straight", "run"))
    for line, expected in zip(resumed, straight, strict=True):
        line.pop("step_time"), expected.pop("step_time")
        assert line == expected
    assert_same_weights(tmp_path / "straight", tmp_path / "run")
    # Once more: nothing is left to do.
    train(make_preference(resume="latest", **settings))
    assert_same_weights(tmp_path / "straight", tmp_path / "run")


@needs_trl
@pytest.mark.multiprocess
def test_two_processes_draw_answers_to_the_same_records_and_end_with_one_model(make_preference, launches, tmp_path):
    config = make_preference(num_processes=2, global_batch_size=16)
    ended = launches.run("ddp", "training/preference.py", config)
    assert ended.returncode == 0, ended.stderr[-3000:]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["launch"] == {"mode": "ddp", "num_processes": 2}
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [1, 2]
    assert AudioLLM.from_pretrained(tmp_path / "run").vocabulary.codebook_size == 64


# --- what is refused --------------------------------------------------------------------------------------------------


def test_without_trl_one_line_says_what_to_install(make_preference, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trl", None)
    config = make_preference()
    with pytest.raises(SystemExit) as ended:
        run_program(PreferenceConfig, train, name="preference", arguments=_flags(config))
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "preference: error: preference training needs trl: run `pip install 'audiollm[preference]'`"
    )


def _flags(config: PreferenceConfig) -> list[str]:
    return [
        *("--model", config.model, "--train_data", config.train_data, "--output_dir", config.output_dir),
        *("--grpo.rewards", "[{name: length}]"),
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grpo": None}, "give grpo or dpo"),
        ({"dpo": DPOSettings()}, "give grpo or dpo"),
        ({"global_batch_size": 6, "micro_batch_size": 2}, "not a multiple of grpo.num_generations=4"),
        ({"load_best_at_end": True, "eval_data": "x"}, "load_best_at_end is of the other trainers"),
        ({"trust_checkpoint": True}, "trust_checkpoint is of the other trainers"),
        ({"shard_optimizer": True}, "shard_optimizer is of the other trainers"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_preference, changes, told):
    with pytest.raises(ValueError, match=told):
        make_preference(**changes)


def test_nested_settings_that_cannot_work_are_refused():
    for made, told in (
        (lambda: GRPOSettings(rewards=()), "grpo.rewards is empty"),
        (lambda: GRPOSettings(rewards=(LENGTH, LENGTH)), "names length twice"),
        (lambda: GRPOSettings(rewards=(LENGTH,), num_generations=1), "draw 2 or more"),
        (lambda: RewardSettings(name="length", weight=0.0), "use a positive number"),
        (lambda: PreferenceLoRA(train_audio_rows=True), "train_audio_rows is of training/sft.py"),
        (lambda: DPOSettings(beta=0.0), "dpo.beta=0.0"),
    ):
        with pytest.raises(ValueError, match=told):
            made()


def test_a_wrong_reward_is_told_in_one_line(make_preference, capsys):
    arguments = [*_flags(make_preference())[:-1], "[{name: wrr}]"]
    with pytest.raises(SystemExit):
        run_program(PreferenceConfig, train, name="preference", arguments=arguments)
    assert capsys.readouterr().err.splitlines()[-1].startswith("preference: error: no reward 'wrr'; there are correct")


@needs_trl
def test_more_records_in_an_update_than_there_are_and_long_answers_are_refused(make_preference):
    with pytest.raises(DataError, match="40 usable records, and an update takes 50"):
        train(make_preference(global_batch_size=200))
    grpo = GRPOSettings(rewards=(LENGTH,), num_generations=4, max_new_tokens=240)
    with pytest.raises(
        DataError, match=r"records leave no room for an answer:\n.*train.jsonl:1: a prompt of \d+ tokens"
    ):
        train(make_preference(grpo=grpo))


@needs_trl
@pytest.mark.parametrize("variable", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"])
def test_what_shards_the_weights_is_refused(make_preference, monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(LaunchError, match="is not supported here"):
        train(make_preference())


def test_records_without_a_pair_of_answers_are_listed(assets, tmp_path, read):
    records = [json.loads(line) for line in assets.train.read_text().splitlines()[:3]]
    records[1]["rejected"] = records[1]["messages"][-1]["content"]
    records[2]["rejected"] = [{"type": "text", "txt": "no"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    encoded = read(path)
    with pytest.raises(
        DataError, match=r"3 records have no pair.*\n.*:1: no rejected.*\n.*:2: rejected equals.*\n.*:3"
    ):
        preference_pairs(encoded, [0, 1, 2], encoded.processor)


def test_pairs_are_the_ids_of_both_conversations(pairs, read):
    encoded = read(pairs)
    columns = preference_pairs(encoded, [0, 1], encoded.processor)
    for number in (0, 1):
        [record] = encoded.encode([number])
        whole = columns["prompt_ids"][number] + columns["chosen_ids"][number]
        assert whole == record.token_ids[: len(whole)].tolist()
        text = encoded.processor.decode(columns["rejected_ids"][number])
        assert text == ("no", "nothing")[number]


def test_lines_of_metrics_have_the_words_of_the_other_trainers():
    assert line_of_metrics({"train_runtime": 1.0}, 3) is None
    line = line_of_metrics({"eval_loss": 0.1, "eval_reward": 0.5, "eval_rewards/wer/mean": 0.4, "eval_runtime": 2}, 3)
    assert line == {"event": "eval", "step": 3, "reward": 0.5, "rewards": {"wer": {"mean": 0.4}}}
