"""Numbers of a run that go to trackers beside metrics.jsonl."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from accelerate import Accelerator

from audiollm.training import sft
from audiollm.training.audio_llm.config import SFTConfig
from audiollm.training.loop import record
from audiollm.training.loop.errors import NonFiniteLossError
from audiollm.training.loop.record import MetricsLog, open_metrics, read_metrics
from audiollm.training.loop.run import running
from audiollm.training.loop.stopping import RunStoppedError

PATHS = {"model": "m", "train_data": "t.jsonl", "output_dir": "o"}


class ToyTracker:
    """Remembers what it is told, as accelerate's trackers are told it."""

    name = "wandb"
    runs: ClassVar[list[ToyTracker]] = []
    fails_at: ClassVar[int | None] = None
    starts: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.is_started = False
        self.num_finished = 0
        ToyTracker.runs.append(self)

    @property
    def is_finished(self) -> bool:
        return self.num_finished > 0

    def start(self) -> None:
        if not ToyTracker.starts:
            raise PermissionError("no key")
        self.is_started = True

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        if step == ToyTracker.fails_at:
            raise ConnectionError("no network")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.num_finished += 1


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> type[ToyTracker]:
    monkeypatch.setattr(ToyTracker, "runs", [])
    monkeypatch.setattr(ToyTracker, "fails_at", None)
    monkeypatch.setattr(ToyTracker, "starts", True)
    monkeypatch.setattr(record, "check_trackers", lambda names: None)
    monkeypatch.setattr("audiollm.training.loop.launch.check_trackers", lambda names: None)
    for name in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(record.LOGGER_TYPE_TO_CLASS, name, ToyTracker)
    return ToyTracker


def test_a_tracker_gets_the_settings_and_every_number_that_is_logged(make_config, assets, toy, tmp_path):
    config = make_config(trackers=("wandb",), eval_data=str(assets.dev), log_every=2, eval_every=3)
    summary = sft.train(config)
    [tracker] = toy.runs
    assert tracker.options == {"run_name": "audiollm", "name": "run"}
    assert tracker.is_started
    assert tracker.is_finished
    assert tracker.settings["learning_rate"] == config.learning_rate
    assert json.loads(tracker.settings["trackers"]) == ["wandb"]
    lines = read_metrics(summary.metrics_file)
    assert [step for step, _ in tracker.logged] == [line["step"] for line in lines]
    assert {line["event"] for line in lines} == {"train", "eval"}
    for line, (_, values) in zip(lines, tracker.logged, strict=True):
        assert values[f"{line['event']}/loss"] == line["loss"]
        assert not any(isinstance(value, str | dict) for value in values.values())


def test_a_tracker_that_fails_is_given_up_with_a_word_and_the_run_goes_on(make_config, toy, caplog):
    toy.fails_at = 3
    summary = sft.train(make_config(trackers=("tensorboard", "wandb")))
    assert [len(tracker.logged) for tracker in toy.runs] == [2, 2]
    assert len(read_metrics(summary.metrics_file)) == 6
    messages = [entry.message for entry in caplog.records if "gets no more numbers" in entry.message]
    assert len(messages) == 2
    assert "ConnectionError('no network')" in messages[0]


def test_tensorboard_writes_beside_the_run_and_forgets_what_a_resumed_run_repeats(make_config, toy, tmp_path):
    config = make_config(trackers=("tensorboard",), save_every=4, max_steps=4)
    sft.train(config)
    sft.train(replace(config, max_steps=6, resume="latest"))
    first, second = toy.runs
    assert first.options == {"run_name": "tensorboard", "logging_dir": str(tmp_path / "run"), "purge_step": 1}
    assert second.options["purge_step"] == 5
    assert [step for step, _ in second.logged] == [5, 6]


def test_lines_without_numbers_are_for_the_file_alone(toy, tmp_path):
    tracker = toy()
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [tracker])
    log.write({"event": "alarm", "step": 1, "message": "codes are dying"})
    log.write({"event": "train", "step": 2, "loss": 0.5, "shares": {"text": 0.25}})
    assert tracker.logged == [(2, {"train/loss": 0.5, "train/shares/text": 0.25})]


@pytest.mark.parametrize("error", [RunStoppedError("asked"), NonFiniteLossError("NaN"), KeyboardInterrupt("now"), None])
def test_trackers_end_once_however_the_run_ends(toy, tmp_path, error):
    """Otherwise the next run of the process would be shown as part of this one."""
    config = SFTConfig(**PATHS, trackers=("wandb", "mlflow"))
    refused = pytest.raises(type(error), match=str(error)) if error else nullcontext()
    with refused, running(Accelerator(cpu=True)) as accelerator:
        metrics = open_metrics(accelerator, tmp_path, config, last_step=0)
        metrics.write({"event": "train", "step": 1, "loss": 0.5})
        if error is not None:
            raise error
        metrics.finish()
    assert [tracker.num_finished for tracker in toy.runs] == [1, 1]
    assert [len(tracker.logged) for tracker in toy.runs] == [1, 1]


def test_other_processes_than_the_main_one_have_neither_metrics_nor_trackers(toy, tmp_path):
    other = SimpleNamespace(is_main_process=False, trackers=[])
    assert open_metrics(other, tmp_path, SFTConfig(**PATHS, trackers=("wandb",)), last_step=0) is None
    assert not toy.runs
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_does_not_start_is_told_of_and_the_run_goes_on(toy, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(toy, "starts", False)
    main = SimpleNamespace(is_main_process=True, trackers=[])
    log = open_metrics(main, tmp_path, SFTConfig(**PATHS, trackers=("wandb",)), last_step=0)
    log.write({"event": "train", "step": 1, "loss": 0.5})
    assert "wandb did not start and gets no numbers" in caplog.text
    assert "no key" in caplog.text
    assert len(read_metrics(log.path)) == 1
    assert [tracker.logged for tracker in toy.runs] == [[]]


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        (("json",), r"use a list of tensorboard, wandb, mlflow"),
        ("wandb", r"trackers='wandb': use a list of"),
        (("wandb", "mlflow", "wandb"), "names one twice"),
    ],
)
def test_other_trackers_are_refused(trackers, message):
    with pytest.raises(ValueError, match=message):
        SFTConfig(**PATHS, trackers=trackers)


def test_what_is_not_installed_is_named_before_anything_slow(make_config, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match="trackers: mlflow is not installed; pip install mlflow, or remove it"):
        sft.train(make_config(trackers=("mlflow",), model="nowhere"))


def test_the_real_tensorboard(make_config, monkeypatch, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.undo()
    sft.train(make_config(trackers=("tensorboard",)))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
