"""The start that all trainers share; what it does inside whole runs is tested with each of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from audiollm.program import run_program
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.errors import DataError, LaunchError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import read_metrics
from audiollm.training.loop.run import TrainingRun, open_run_folder, parameter_counts, running, start_run


@dataclass(frozen=True, kw_only=True)
class Settings(RunConfig):
    """A run with one setting of its own."""

    train_data: str = "clips.jsonl"
    save_every: int | None = 2
    log_every: int = 2
    size: float = 1.0


def start(config: Settings) -> TrainingRun:
    accelerator = Accelerator(cpu=True)
    folder = open_run_folder(accelerator, config)
    model = torch.nn.Linear(2, 2)
    return start_run(
        accelerator, config, folder,
        model=model, optimizer=torch.optim.AdamW(model.parameters()), total_steps=5, data_metadata={"clips": 3},
    )  # fmt: skip


def make_updates(run: TrainingRun, last: int) -> None:
    for step in run.steps[:last]:
        with torch.no_grad():
            run.model.weight += torch.rand(1)
        run.write_update({"event": "train", "step": step})
        run.save_if_due(step)


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path):
    straight = start(Settings(output_dir=str(tmp_path / "straight")))
    make_updates(straight, 5)
    killed = start(Settings(output_dir=str(tmp_path / "killed")))
    make_updates(killed, 3)
    resumed = start(Settings(output_dir=str(tmp_path / "killed"), resume="latest"))
    assert list(resumed.steps) == [3, 4, 5]
    make_updates(resumed, 5)
    assert torch.equal(resumed.model.weight, straight.model.weight)
    for name in ("straight", "killed"):
        lines = read_metrics(tmp_path / name / "metrics.jsonl")
        assert [line["step"] for line in lines] == [2, 4, 5]  # every second, and the last
        folder = tmp_path / name / "checkpoints"
        assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_000004", "step_000005"]
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert (record["num_parameters"], record["data"], record["num_updates"]) == (6, {"clips": 3}, 5)
        assert json.loads((folder / "step_000005" / "run.json").read_text()) == record


def test_a_folder_in_use_and_another_run_are_refused(tmp_path):
    run = start(Settings(output_dir=str(tmp_path)))
    make_updates(run, 2)
    with pytest.raises(ValueError, match=r"already holds a run.*--resume latest"):
        start(Settings(output_dir=str(tmp_path)))
    with pytest.raises(ResumeError, match=r"size: 1\.0 → 2\.0"):
        start(Settings(output_dir=str(tmp_path), resume="latest", size=2.0))


def test_frozen_weights_are_counted_apart():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    assert parameter_counts(model) == {"num_parameters": 13, "num_trainable_parameters": 4}


def test_the_process_group_is_left_also_after_an_error():
    ended = []

    class Ended(Accelerator):
        def end_training(self) -> None:
            ended.append(True)
            super().end_training()

    with pytest.raises(ValueError, match="no"), running(Ended(cpu=True)):
        raise ValueError("no")
    assert ended == [True]


@pytest.mark.parametrize("error", [LaunchError, DataError, ResumeError, NonFiniteLossError])
def test_user_errors_end_in_one_message(tmp_path: Path, capsys, error):
    def refuse(config: Settings) -> None:
        raise error(f"size={config.size}: use another")

    with pytest.raises(SystemExit) as ended:
        run_program(Settings, refuse, name="x", arguments=["--output_dir", str(tmp_path), "--size", "3"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "x: error: size=3.0: use another\n"
