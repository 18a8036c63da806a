"""The start that all trainers share; what it does inside whole runs is tested with each of them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure

from audiollm.program import run_program
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.errors import DataError, LaunchError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import read_metrics
from audiollm.training.loop.run import RunSummary, TrainingRun, open_run_folder, parameter_counts, running, start_run


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


@pytest.mark.parametrize("content", ['{"model_type": "qwen2"}', "{", "[]"])
def test_a_models_folder_is_not_written_into(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for resume in (None, "latest"):
        with pytest.raises(ValueError, match=r"config\.json is no run's, .*: choose another output_dir"):
            start(Settings(output_dir=str(tmp_path), resume=resume))
    assert (tmp_path / "config.json").read_text() == content


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


# ------------------------------------------------------------ after the updates


@pytest.fixture
def no_pictures(monkeypatch):  # each takes a quarter of a second
    monkeypatch.setattr("audiollm.training.results.curves.draw_curves", lambda *_: Figure())


LOSSES = [5.0, 2.0, 4.0, 3.0, 3.5]


def make_evaluated_updates(run: TrainingRun, last: int) -> None:
    for step in run.steps[:last]:
        with torch.no_grad():
            run.model.weight.fill_(step)
        run.write_update({"event": "train", "step": step, "loss": 2 * LOSSES[step - 1], "learning_rate": 0.1 / step})
        run.write_evaluation({"event": "eval", "step": step, "loss": LOSSES[step - 1], "wer": 1 / step, "num_clips": 7})
        run.save_if_due(step)


def checkpoints_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step_*"))


def evaluated(folder: Path, **settings) -> Settings:
    return Settings(output_dir=str(folder), eval_data="clips.jsonl", **{"save_every": 1, "log_every": 1, **settings})


def test_pruning_keeps_the_best_and_only_that_beside_the_newest(no_pictures, tmp_path):
    run = start(evaluated(tmp_path))
    (tmp_path / "checkpoints" / "step_000001_of_mine").mkdir(parents=True)
    make_evaluated_updates(run, 5)
    assert checkpoints_in(tmp_path) == ["step_000001_of_mine", "step_000002", "step_000004", "step_000005"]


def test_a_resumed_run_remembers_the_best(no_pictures, tmp_path):
    make_evaluated_updates(start(evaluated(tmp_path, keep_checkpoints=1)), 3)
    assert checkpoints_in(tmp_path) == ["step_000002", "step_000003"]
    resumed = start(evaluated(tmp_path, keep_checkpoints=1, resume="latest", load_best_at_end=True))
    assert (resumed.best.step, resumed.best.value) == (2, 2.0)
    make_evaluated_updates(resumed, 5)
    assert checkpoints_in(tmp_path) == ["step_000002", "step_000005"]
    assert resumed.load_best() == 2
    assert resumed.model.weight.unique().item() == 2


def test_another_metric_may_say_which_is_best(no_pictures, tmp_path):
    run = start(evaluated(tmp_path, metric_for_best="wer", load_best_at_end=True))
    make_evaluated_updates(run, 5)
    assert (run.best.step, run.best.metric) == (5, "wer")
    assert run.load_best() == 5


def test_the_best_is_saved_where_no_checkpoint_is_due(no_pictures, tmp_path):
    run = start(evaluated(tmp_path, save_every=None, keep_checkpoints=1, load_best_at_end=True))
    make_evaluated_updates(run, 5)
    assert checkpoints_in(tmp_path) == ["step_000002", "step_000005"]
    assert run.load_best() == 2


def test_without_the_best_the_best_of_the_kept_ones_is_taken_and_said(no_pictures, tmp_path, caplog):
    make_evaluated_updates(start(evaluated(tmp_path, save_every=4)), 4)
    resumed = start(evaluated(tmp_path, save_every=4, resume="latest", load_best_at_end=True))
    make_evaluated_updates(resumed, 1)
    assert resumed.load_best() == 4
    assert "no checkpoint holds the best evaluation (loss 2 after update 2)" in caplog.text


def test_a_metric_that_evaluations_lack_is_refused(tmp_path):
    run = start(evaluated(tmp_path, metric_for_best="mcd"))
    with pytest.raises(ValueError, match=r"metric_for_best=mcd.*they have loss, wer; .*step_000001 holds"):
        make_evaluated_updates(run, 1)
    resumed = start(evaluated(tmp_path, metric_for_best="wer", resume="latest"))
    assert resumed.first_step == 2
    with pytest.raises(ValueError, match="metric_for_best=applause: use one of loss"):
        evaluated(tmp_path, metric_for_best="applause")
    with pytest.raises(ValueError, match="load_best_at_end needs eval_data"):
        Settings(output_dir=str(tmp_path), load_best_at_end=True)


def test_evaluations_and_the_end_are_said_in_readable_lines(no_pictures, tmp_path, caplog):
    caplog.set_level("INFO")
    run = start(evaluated(tmp_path))
    make_evaluated_updates(run, 5)
    run.finish(
        RunSummary(5, 7.0, None, tmp_path / "model", tmp_path / "metrics.jsonl", run.load_best(), run.best),
        ["do", "it", "in a folder"],
    )
    messages = [record.message.removeprefix("[RANK 0] ") for record in caplog.records]
    assert messages[:3] == [
        "evaluation after update 1 of 5: loss 5, wer 1; the best so far",
        "evaluation after update 2 of 5: loss 2, wer 0.5; the best so far",
        "evaluation after update 3 of 5: loss 4, wer 0.33333; best so far: loss 2 after update 2",
    ]
    assert messages[5:] == [
        f"trained model: {tmp_path}/model (its weights are those after update 5 of 5, the last)",
        f"best evaluation: loss 2 after update 2 ({tmp_path}/checkpoints/step_000002)",
        f"curves: {tmp_path}/curves.png, figures: {tmp_path}/metrics.jsonl",
        "next: do it 'in a folder'",
    ]


def test_curves_of_a_killed_and_resumed_run_are_those_of_an_uninterrupted_one(tmp_path):
    make_evaluated_updates(start(evaluated(tmp_path / "straight")), 5)
    killed = start(evaluated(tmp_path / "killed", save_every=2))
    make_evaluated_updates(killed, 3)  # the third is written, and lost with the process
    make_evaluated_updates(start(evaluated(tmp_path / "killed", save_every=2, resume="latest")), 5)
    straight, resumed = ((tmp_path / name / "curves.csv").read_text() for name in ("straight", "killed"))
    assert resumed == straight
    rows = list(csv.DictReader(straight.splitlines()))
    assert [(row["event"], row["step"]) for row in rows] == [
        (e, str(s)) for s in range(1, 6) for e in ("train", "eval")
    ]
    assert [float(row["loss"]) for row in rows[1::2]] == LOSSES
    assert (tmp_path / "killed" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_of_a_run_without_checkpoints_is_gone_on_with_by_the_same_run_only(tmp_path, caplog):
    start(Settings(output_dir=str(tmp_path / "run")))
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"event": "train", "step": 1}) + "\n")
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(ResumeError, match=r"holds another run, .*\n  size: 1\.0 → 2\.0"):
        start(Settings(output_dir=str(tmp_path / "run"), resume="latest", size=2.0))
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 1
    assert list(start(Settings(output_dir=str(tmp_path / "run"), resume="latest")).steps) == [1, 2, 3, 4, 5]
    assert "holds no checkpoint to go on from: starting from the beginning" in caplog.text


def test_a_checkpoint_of_elsewhere_is_not_gone_on_with_in_the_folder_of_another_run(tmp_path):
    make_updates(start(Settings(output_dir=str(tmp_path / "one"), size=2.0)), 2)
    make_updates(start(Settings(output_dir=str(tmp_path / "other"))), 2)
    checkpoint = str(tmp_path / "one" / "checkpoints" / "step_000002")
    with pytest.raises(ResumeError, match="holds another run"):
        start(Settings(output_dir=str(tmp_path / "other"), resume=checkpoint, size=2.0))
    assert start(Settings(output_dir=str(tmp_path / "new"), resume=checkpoint, size=2.0)).first_step == 3
