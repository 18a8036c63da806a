"""The launches that must be refused."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from audiollm.training.audio_llm.config import SFTConfig
from audiollm.training.loop.errors import LaunchError
from audiollm.training.loop.launch import _complete_deepspeed_config, start_accumulating

from ..launched_jobs import launch_as_users_do

LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.multiprocess
def test_a_launcher_that_starts_one_process_instead_of_two_is_refused(make_config, tmp_path):
    """``accelerate launch --cpu --num_processes 2`` starts one process and says nothing."""
    flags = ("--num_processes", "2", "--cpu")
    ended = launch_as_users_do("single", "training/sft.py", make_config(num_processes=2), tmp_path, *flags)
    assert ended.returncode != 0
    assert "accelerate launch was asked for several processes but started one" in ended.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.fixture
def environment(monkeypatch):
    """Sets variables as a launcher would, on a clean slate."""
    for name in [*LAUNCHER_VARIABLES, *(name for name in os.environ if name.startswith("ACCELERATE_"))]:
        monkeypatch.delenv(name, raising=False)

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def start_alone(config: SFTConfig) -> None:
    start_accumulating(config, lambda _: 1, micro_batch_size=config.micro_batch_size, mixed_precision="no")


def test_a_number_of_processes_in_the_config_is_enforced(make_config, environment):
    environment()
    with pytest.raises(LaunchError, match=r"num_processes=2 in the config, but 1 were started.*--num_processes 2"):
        start_alone(make_config(num_processes=2))


def test_the_simple_launchers_dropped_processes_are_noticed(make_config, environment):
    environment(ACCELERATE_MIXED_PRECISION="no", MASTER_PORT="29500", MASTER_ADDR="127.0.0.1")
    with pytest.raises(LaunchError, match=r"several processes but started one.*ddp\.yaml"):
        start_alone(make_config())


def test_processes_that_do_not_see_each_other_are_noticed(make_config, environment, monkeypatch):
    """What `--multi_gpu` without a GPU gives: accelerate ignores WORLD_SIZE unless LOCAL_RANK is set."""
    environment(WORLD_SIZE="2", RANK="0")
    monkeypatch.setattr("audiollm.training.loop.launch.Accelerator", _LonelyAccelerator)
    with pytest.raises(LaunchError, match=r"2 processes were started but this one sees 1: each would train alone"):
        start_alone(make_config())


class _LonelyAccelerator:
    def __init__(self, **_settings: object) -> None:
        self.num_processes = 1
        self.distributed_type = "NO"


def test_settings_that_turn_deepspeed_off_are_refused(make_config, environment):
    environment(ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_USE_CPU="true")
    with pytest.raises(LaunchError, match="ACCELERATE_USE_CPU turns DeepSpeed off"):
        start_alone(make_config())


def test_a_deepspeed_file_that_contradicts_the_config_is_refused_and_auto_is_filled_in():
    settings = {"gradient_clipping": "auto", "train_micro_batch_size_per_gpu": 2}
    plugin = SimpleNamespace(deepspeed_config=settings)
    accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin), gradient_accumulation_steps=4)
    _complete_deepspeed_config(accelerator, micro_batch_size=2, max_grad_norm=None)
    assert settings == {
        "gradient_clipping": 0.0, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"sets gradient_clipping=0\.0 but the run's config says 0\.5.*auto"):
        _complete_deepspeed_config(accelerator, micro_batch_size=2, max_grad_norm=0.5)


def test_fsdp_is_refused_by_name(make_config, environment):
    environment(ACCELERATE_USE_FSDP="true")
    with pytest.raises(LaunchError, match=r"FSDP is not supported.*zero3\.yaml"):
        start_alone(make_config())
