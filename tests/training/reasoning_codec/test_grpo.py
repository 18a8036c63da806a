"""The second stage of a ReasoningCodec's training: rewards of what is written, through trl."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.alignment.config import GRPOSettings, RewardSettings
from audiollm.training.alignment.rewards.registry import REWARDS
from audiollm.training.loop.errors import DataError
from audiollm.training.reasoning_codec.analyst import Analyst
from audiollm.training.reasoning_codec.hearing import Hearing
from audiollm.training.reasoning_codec.policy import HeardEmbedding
from audiollm.training.reasoning_codec.settings import AnalysisSettings
from audiollm.training.train_reasoning_codec import train
from audiollm.training.uniaudio.config import TextLoRASettings
from tests.training.finished_runs import assert_same_weights, metrics_of, weights_of

from .conftest import Material

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="needs pip install 'audiollm[preference]'")


@pytest.fixture
def supervised(make_stage, tmp_path: Path) -> Path:
    """A run of the first stage, with adapters."""
    train(make_stage(output_dir=str(tmp_path / "supervised"), analysis=AnalysisSettings(lora=TextLoRASettings(r=4))))
    return tmp_path / "supervised"


@pytest.fixture
def make_grpo(make_stage, supervised: Path):
    def make(**changes: Any):
        rewards = (RewardSettings(name="even"), RewardSettings(name="sap", weight=0.5))
        settings: dict[str, Any] = {
            "stage": "grpo", "codec": str(supervised), "max_steps": 2, "global_batch_size": 8, "micro_batch_size": 4,
            "learning_rate": 1e-2, "warmup_ratio": 0.0,
            "grpo": GRPOSettings(rewards=rewards, num_generations=4, max_new_tokens=5),
        }  # fmt: skip
        return make_stage(**(settings | changes))

    def share_of_even(sounds: Any) -> Any:
        return lambda answers: [sum(one % 2 == 0 for one in a.token_ids) / len(a.token_ids) for a in answers]

    REWARDS.register("even", share_of_even, replace=True)
    return make


def test_rewards_move_the_branch_and_the_adapters_and_nothing_else(make_grpo, supervised, material, tmp_path):
    summary = train(make_grpo(eval_data=str(material.dev)))
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]["rewards"]) == {"even", "sap"}
    assert summary.evaluation is not None
    before, after = weights_of(supervised), weights_of(tmp_path / "run")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} == {"reasoning"}
    assert not [name for name in changed if ".codebooks." in name]
    assert {"reasoning.query", "reasoning.downsample.weight", "reasoning.quantizer.project_in.weight"} <= changed
    adapters = [run / "analyst" / "adapter" for run in (supervised, tmp_path / "run")]
    assert (adapters[0] / "adapter_model.safetensors").read_bytes() != (
        adapters[1] / "adapter_model.safetensors"
    ).read_bytes()
    codec = AudioTokenizer.from_pretrained(tmp_path / "run")
    assert codec.config.trained_stage == "grpo"
    Analyst.from_pretrained(tmp_path / "run" / "analyst")


def test_codes_as_ids_say_what_codes_say(supervised, material: Material):
    codec, analyst = AudioTokenizer.from_pretrained(supervised), Analyst.from_pretrained(supervised / "analyst").eval()
    waveforms = [torch.randn(24000) / 10, torch.randn(14400) / 10]
    heard, num_codes = Hearing(codec)(waveforms), [5, 3]
    text = analyst.llm.get_input_embeddings()
    embedding = HeardEmbedding(
        text, codec.reasoning, analyst.projection,
        lambda clips: ([heard[clip] for clip in clips], [num_codes[clip] for clip in clips]),
    ).eval()  # fmt: skip
    request = analyst.request_ids("Which?")
    rows = [[*request[0], *embedding.code_ids(clip, num_codes[clip]), *request[1]] for clip in (1, 0, 1)]
    with torch.no_grad():
        for row, clip in zip(rows, (1, 0, 1), strict=True):
            said = codec.reasoning.quantizer.decode(codec.encode(waveforms[clip], 24000)[0][None])[0]
            torch.testing.assert_close(embedding(torch.tensor([row]))[0], analyst.prompt(said, request))
        padded = torch.tensor([row + [0] * (len(rows[1]) - len(row)) for row in rows])
        torch.testing.assert_close(embedding(padded)[2], embedding(padded)[0])
    embedding.train()
    embedding(padded).square().sum().backward()
    assert codec.reasoning.query.grad.abs().sum() > 0  # rewards reach what is in front of the codes


@pytest.mark.slow
def test_the_reward_rises(make_stage, make_grpo, tmp_path):
    # With all weights of the text LLM: adapters hardly move the flat logits of a random one.
    train(make_stage(output_dir=str(tmp_path / "whole")))
    grpo = GRPOSettings(rewards=(RewardSettings(name="even"),), num_generations=8, max_new_tokens=5)
    train(
        make_grpo(
            codec=str(tmp_path / "whole"), grpo=grpo, global_batch_size=32, micro_batch_size=32, max_steps=14,
            learning_rate=1e-2,
        )
    )  # fmt: skip
    rewards = [line["reward"] for line in metrics_of(tmp_path / "run")]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1, rewards


def test_interrupted_and_resumed_equals_uninterrupted(make_grpo, tmp_path):
    settings = {"max_steps": 3, "save_every": 1, "keep_checkpoints": 3}
    train(make_grpo(output_dir=str(tmp_path / "straight"), **settings))
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "straight", resumed)
    for name in ("checkpoint-2", "checkpoint-3"):
        shutil.rmtree(resumed / "checkpoints" / name)
    train(make_grpo(output_dir=str(resumed), resume="latest", **settings))
    assert [line["reward"] for line in metrics_of(resumed)] == [
        line["reward"] for line in metrics_of(tmp_path / "straight")
    ]
    assert_same_weights(resumed, tmp_path / "straight")


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_codec_without_its_analyst_is_refused(make_grpo, supervised):
    with pytest.raises(ValueError, match=r"has no analyst/.*name the folder of its run"):
        train(make_grpo(codec=str(supervised / "model")))


def test_settings_that_cannot_work_are_refused(make_grpo, tmp_path):
    with pytest.raises(ValueError, match=r"beta=0\.1: trl would load the model"):
        make_grpo(grpo=GRPOSettings(rewards=(RewardSettings(name="sap"),), beta=0.1))
    with pytest.raises(ValueError, match=r"one of them listens, and analyses are text"):
        train(make_grpo(grpo=GRPOSettings(rewards=(RewardSettings(name="wer"),), num_generations=4)))
    with pytest.raises(ValueError, match="not a multiple of grpo"):
        make_grpo(global_batch_size=6)
    with pytest.raises(DataError, match="an update takes 250: lower global_batch_size"):
        train(make_grpo(global_batch_size=1000, output_dir=str(tmp_path / "large")))
