from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from jsonargparse import auto_cli, set_parsing_settings

from audiollm.training.audio_llm.config import LoRASettings, SFTConfig, accumulation_steps, num_updates

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
PATHS = {"model": "m", "train_data": "t.jsonl", "output_dir": "o"}


def parse(*arguments: str) -> SFTConfig:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return auto_cli(SFTConfig, as_positional=False, args=[*arguments])


def path_flags() -> list[str]:
    return [part for name, value in PATHS.items() for part in (f"--{name}", value)]


@pytest.mark.parametrize("name", ["sft.yaml", "sft_lora.yaml"])
def test_shipped_configs_parse_and_flags_override_them(name):
    config = parse("--config", str(CONFIGS / name), *path_flags(), "--learning_rate", "3e-4")
    assert config.learning_rate == 3e-4
    assert config.save_every == 500
    assert (config.lora is not None) == ("lora" in name)


@pytest.mark.parametrize(("name", "decides"), [("understanding.yaml", "accuracy"), ("tts.yaml", "spoken_wer")])
def test_recipes_parse_beside_held_out_records(name, decides):
    config = parse("--config", str(CONFIGS / name), *path_flags(), "--eval_data", "dev.jsonl")
    assert config.metric_for_best == decides
    assert config.packing == "pack"
    assert config.learning_rate == 4e-4


def test_a_saved_config_parses_to_itself(tmp_path):
    config = SFTConfig(
        **PATHS, lora=LoRASettings(r=4, target_modules=("q_proj",)), max_grad_norm=None, betas=(0.8, 0.9)
    )
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    assert parse("--config", str(tmp_path / "config.json")) == config


def test_one_lora_flag_switches_adapters_on():
    assert parse(*path_flags(), "--lora.r", "4").lora == LoRASettings(r=4)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("learning_rat: 1.0e-4", "learning_rat"),
        ("max_steps: many", "max_steps"),
        ("lora: {rank: 4}", "rank"),
        ("mixed_precision: fp16", "mixed_precision"),
    ],
)
def test_a_wrong_yaml_key_or_type_is_refused_by_name(tmp_path, capsys, yaml, message):
    (tmp_path / "run.yaml").write_text(yaml)
    with pytest.raises(SystemExit):
        parse("--config", str(tmp_path / "run.yaml"), *path_flags())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_batch_size": 12, "micro_batch_size": 8}, "global_batch_size=12 is not a multiple"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0"),
        ({"warmup_ratio": 1.5}, "warmup_ratio=1.5"),
        ({"betas": (0.9, 1.0)}, "betas="),
        ({"max_steps": 0}, "max_steps=0"),
        ({"eval_every": 5}, "eval_every needs eval_data"),
        ({"eval_listen_samples": 4}, "eval_listen_samples needs eval_data"),
        ({"eval_listen_samples": -1}, "eval_listen_samples=-1"),
        ({"eval_data": "d.jsonl", "eval_asr": "whisper-tiny.en"}, "eval_asr needs eval_listen_samples"),
        ({"eval_data": "d.jsonl", "eval_similarity": "resemblyzer"}, "eval_similarity needs eval_listen_samples"),
        ({"eval_data": "d.jsonl", "eval_listen_samples": 4, "eval_language": "de"}, "eval_language has no effect"),
        ({"eval_data": "d.jsonl", "metric_for_best": "spoken_wer", "eval_listen_samples": 4}, "needs eval_asr"),
        ({"eval_data": "d.jsonl", "metric_for_best": "spoken_similarity"}, "needs eval_similarity"),
        ({"eval_data": "d.jsonl", "metric_for_best": "text_perplexity"}, "needs eval_text"),
        ({"on_too_long": "skip", "check_data": False}, "needs check_data"),
        ({"output_dir": ""}, "output_dir is empty"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        SFTConfig(**(PATHS | change))


def test_lora_settings_are_checked():
    for change, message in [
        ({"r": 0}, "lora.r=0"),
        ({"alpha": 0.0}, "lora.alpha"),
        ({"dropout": 1.0}, "lora.dropout=1.0"),
        ({"target_modules": ()}, "target_modules is empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            LoRASettings(**change)


def test_accumulation_follows_from_the_batch_sizes():
    config = SFTConfig(**PATHS, global_batch_size=24, micro_batch_size=4)
    assert [accumulation_steps(config, processes) for processes in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(ValueError, match=r"micro_batch_size=4 × 4 processes = 16"):
        accumulation_steps(config, 4)


def test_updates_follow_from_epochs_unless_given():
    assert num_updates(SFTConfig(**PATHS, global_batch_size=8, num_epochs=2.5), num_records=10) == 4
    assert num_updates(SFTConfig(**PATHS, max_steps=7), num_records=10) == 7


@pytest.mark.parametrize("length", [{"num_epochs": 1e300}, {"num_epochs": 100_001.0}, {"max_steps": 10**400}])
def test_a_run_without_end_is_refused(length):
    with pytest.raises(ValueError, match=f"{next(iter(length))}=.* is more than any run makes: use at most 1"):
        SFTConfig(**PATHS, **length)


def test_records_to_look_at_of_a_mixture_are_set_in_its_file():
    with pytest.raises(ValueError, match="check_records has no effect on a mixture: set the one in its file"):
        SFTConfig(model="m", train_data="mix.yaml", output_dir="out", check_records=5)


@pytest.mark.parametrize("alpha", [float("inf"), float("nan"), 0.0, -1.0])
def test_adapters_are_scaled_by_a_positive_number(alpha):
    with pytest.raises(ValueError, match=r"lora\.alpha=.*: use a positive scale"):
        LoRASettings(alpha=alpha)
