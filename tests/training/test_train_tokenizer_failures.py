"""Trainings of a tokenizer that meet what real ones meet: bad clips, uneven processes, full disks, sudden death."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import datasets.config
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from audiollm.data.audio.augmentation import AugmentationConfig
from audiollm.training import train_tokenizer
from audiollm.training.audio_tokenizer import trainer as tokenizer_training
from audiollm.training.audio_tokenizer.config import TokenizerSettings
from audiollm.training.audio_tokenizer.records import TokenizerRecords
from audiollm.training.loop import checkpoints as checkpointing
from audiollm.training.loop import run as run_start
from audiollm.training.loop.errors import DataError, NonFiniteLossError
from audiollm.training.loop.record import config_as_json
from audiollm.training.train_tokenizer import train

from .finished_runs import metrics_of

SETTINGS = TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.1)

# ------------------------------------------------------------------------------------------------ comparing whole runs


def state_of(run: Path) -> dict[str, Any]:
    """What a run ends with: the model, and weights, optimizer, codebook, alarms and random state of its checkpoint."""
    last = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    state: dict[str, Any] = {
        f"model.{name}": value for name, value in load_file(run / "model/model.safetensors").items()
    }
    state |= load_file(last / "weights.safetensors")
    return state | {path.name: torch.load(path, weights_only=True) for path in last.glob("*.pt")}


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(is_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def assert_same_run(one: Path, other: Path) -> None:
    for line, expected in zip(metrics_of(one, None), metrics_of(other, None), strict=True):
        assert line == expected
    ours, theirs = state_of(one), state_of(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not is_same(value, theirs[name])] == []


# -------------------------------------------------------------------------------------------------------- bad records

SAP = {
    "linguistic_content": "red",
    "vocal_attributes": {"gender": "Female"},
    "auditory_scenes": {"summary": "A woman says red.", "events": []},
}


def read_clips(corpus: Any) -> list[dict[str, Any]]:
    """The training records with the recordings inside, as shards of parquet have them."""
    records = [json.loads(line) for line in corpus.train.read_text().splitlines()]
    for record in records:
        record["audio"] = {"bytes": (corpus.folder / record["audio"]).read_bytes(), "path": record["audio"]}
    return records


def write_shards(folder: Path, records: list[dict[str, Any]], rows: int = 7) -> str:
    """Writes parquet files of so many rows each; returns the pattern of their names."""
    keys = sorted({key for record in records for key in record})
    for start in range(0, len(records), rows):
        columns = {key: [record.get(key) for record in records[start : start + rows]] for key in keys}
        if "sap" in columns:
            columns["sap"] = [json.dumps(value) if isinstance(value, dict) else value for value in columns["sap"]]
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"train-{start // rows:05d}.parquet")
    return str(folder / "train-*.parquet")


def broken_recordings(clip: bytes, folder: Path) -> dict[str, bytes]:
    """Recordings that cannot be trained on."""
    for name, samples in (("empty", []), ("nan", [0.1, float("nan"), 0.1]), ("long", [0.0] * 16000 * 31)):
        soundfile.write(folder / f"{name}.wav", samples, 16000, subtype="FLOAT")
    files = {name: (folder / f"{name}.wav").read_bytes() for name in ("empty", "nan", "long")}
    return files | {"text": b"<html>503 Service Unavailable</html>", "nothing": b"", "header": clip[:30]}


@pytest.fixture
def _datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("_datasets_cache")
def test_every_bad_clip_of_all_shards_is_named_and_skipping_them_is_as_if_they_were_not_there(
    make_tokenizer_config: Any, tokenizer_corpus: Any, tmp_path: Path
) -> None:
    good = read_clips(tokenizer_corpus)
    recordings = broken_recordings(good[0]["audio"]["bytes"], tmp_path)
    bad: dict[str, dict[str, Any]] = {
        name: {"audio": {"bytes": content, "path": f"{name}.wav"}} for name, content in recordings.items()
    }
    bad |= {
        "wordless": {"text": ""},
        "spaces": {"text": "  "},
        "no-json": {"sap": '{"linguistic_content": "red"'},
        "unknown-gender": {"sap": SAP | {"vocal_attributes": {"gender": "Robot"}}},
        "voice-without-words": {"sap": SAP | {"linguistic_content": None}},
        "too-many-words": {"sap": SAP | {"linguistic_content": "red green blue " * 20}},
        "no-type": {"sound_type": "noise"},
        "nothing-to-learn": {"text": None},
    }
    records, places = list(good), {}
    for number, (name, changes) in enumerate(bad.items()):
        records.insert(1 + 2 * number, good[1] | {"id": f"bad-{name}"} | changes)
    for row, record in enumerate(records):
        if record["id"].startswith("bad-"):
            places[record["id"].removeprefix("bad-")] = f"train-{row // 7:05d}.parquet:row {row % 7}:"
    (tmp_path / "mixed").mkdir()
    source = write_shards(tmp_path / "mixed", records)
    with pytest.raises(DataError) as error:
        train(make_tokenizer_config(train_data=source))
    message = str(error.value)
    assert f"{len(bad)} of {len(records)} records cannot be trained on" in message
    for name, place in places.items():
        [line] = [line for line in message.splitlines() if place in line]
        field = "audio" if name in recordings else "tasks" if name == "nothing-to-learn" else next(iter(bad[name]))
        assert field in line, (name, line)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())

    (tmp_path / "clean").mkdir()
    settings = {"audio_tokenizer": SETTINGS, "max_steps": 3}
    train(make_tokenizer_config(train_data=source, on_bad="skip", output_dir=str(tmp_path / "skipped"), **settings))
    clean = write_shards(tmp_path / "clean", good)
    train(make_tokenizer_config(train_data=clean, output_dir=str(tmp_path / "plain"), **settings))
    assert_same_run(tmp_path / "skipped", tmp_path / "plain")
    [listed] = (tmp_path / "skipped").glob("skipped_*.jsonl")
    reasons = [json.loads(line) for line in listed.read_text().splitlines()]
    assert len(reasons) == len(bad)
    assert all(reason["where"] + ":" in place or place.startswith(Path(reason["where"]).name)
               for reason, place in zip(reasons, places.values(), strict=True))  # fmt: skip


@pytest.mark.usefixtures("_datasets_cache")
def test_a_shard_that_was_cut_off_is_named(make_tokenizer_config: Any, tokenizer_corpus: Any, tmp_path: Path) -> None:
    source = write_shards(tmp_path, read_clips(tokenizer_corpus))
    shard = tmp_path / "train-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"train-00001\.parquet: cannot be read"):
        train(make_tokenizer_config(train_data=source, on_bad="skip"))


def test_data_of_which_nothing_is_left_are_refused_also_when_skipping(
    make_tokenizer_config: Any, tokenizer_corpus: Any, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"audio": "absent.wav", "text": "red"}\n{"audio": "absent.wav"}\n')
    with pytest.raises(DataError, match=r"2 of 2 records cannot be trained on[\s\S]*bad\.jsonl:1[\s\S]*bad\.jsonl:2"):
        train(make_tokenizer_config(train_data=str(bad), on_bad="skip"))
    with pytest.raises(DataError, match=r"2 of 2 records"):
        train(make_tokenizer_config(eval_data=str(bad), on_bad="skip"))


def test_recordings_that_vanish_while_training_cost_nothing_but_the_time_since_the_last_checkpoint(
    make_tokenizer_config: Any, tokenizer_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(tokenizer_corpus.folder, clips)
    (clips / "train.jsonl").rename(tmp_path / "train.jsonl")
    content = (tmp_path / "train.jsonl").read_text().replace('"audio": "', '"audio": "clips/')
    (tmp_path / "train.jsonl").write_text(content)
    settings = {
        "train_data": str(tmp_path / "train.jsonl"), "audio_tokenizer": SETTINGS, "save_every": 1, "cache_megabytes": 0,
    }  # fmt: skip
    train(make_tokenizer_config(output_dir=str(tmp_path / "straight"), **settings))

    update = tokenizer_training.TokenizerUpdater.update

    def unmount(updater: Any, step: int, batches: Any) -> Any:
        if step == 3:
            clips.rename(tmp_path / "away")
        return update(updater, step, batches)

    monkeypatch.setattr(tokenizer_training.TokenizerUpdater, "update", unmount)
    with pytest.raises(DataError, match=r"train\.jsonl:\d+: audio: .*clip_\d+\.wav"):
        train(make_tokenizer_config(**settings))
    monkeypatch.undo()
    (tmp_path / "away").rename(clips)
    assert checkpointing.Checkpoints(tmp_path / "run" / "checkpoints", keep=2).latest().name >= "step_000002"
    train(make_tokenizer_config(resume="latest", **settings))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


# ------------------------------------------------------------------------------------------------------ no more numbers


def test_the_clip_that_made_the_loss_no_number_is_named_first(
    make_tokenizer_config: Any, tokenizer_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = TokenizerRecords.waveform

    def overflows(records: TokenizerRecords, index: int) -> torch.Tensor:
        return waveform(records, index) * (float("inf") if records.id(index) == "clip-11" else 1.0)

    settings = {
        "audio_tokenizer": SETTINGS,
        "micro_batch_size": 1,
        "save_every": 1,
        "initialise_codebook": "keep",
        "warm_start": False,
    }
    monkeypatch.setattr(TokenizerRecords, "waveform", overflows)
    with pytest.raises(NonFiniteLossError, match=r"update \d: loss is nan; its clips are clip-11 \("):
        train(make_tokenizer_config(**settings))
    [path] = (tmp_path / "run").glob("non_finite_step_*.json")
    report = json.loads(path.read_text())
    assert [one["clips"] for one in report["passes"] if one["loss"] == "nan"] == [["clip-11"]]
    assert len(report["passes"]) == 8
    # Nothing of it reached the weights or the codebook: the run goes on as if it had not been.
    monkeypatch.undo()
    assert [line["step"] for line in metrics_of(tmp_path / "run", None)] == list(range(1, report["step"]))
    if report["step"] > 1:
        train(make_tokenizer_config(resume="latest", **settings))
        train(make_tokenizer_config(output_dir=str(tmp_path / "straight"), **settings))
        assert_same_run(tmp_path / "run", tmp_path / "straight")


# ----------------------------------------------------------------------------------------------------------- full disks


@contextmanager
def full_disk(after_bytes: int) -> Iterator[None]:
    """Files can grow to so many bytes and no further, as on a disk that fills up while they are written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_saving_leaves_the_last_checkpoint(
    make_tokenizer_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"audio_tokenizer": SETTINGS, "save_every": 1, "keep_checkpoints": 1, "max_steps": 3}
    straight = tmp_path / "straight"
    train(make_tokenizer_config(output_dir=str(straight), **settings))
    checkpoint = straight / "checkpoints" / "step_000003"
    save = checkpointing.Checkpoints.save
    for file in ("weights.safetensors", "optimizer.pt", "codebook.pt", "config.json"):
        run = tmp_path / file
        space = (checkpoint / file).stat().st_size - 1

        def save_to_full_disk(self: Any, *args: Any, space: int = space, **options: Any) -> Any:
            step = args[3].step
            with full_disk(space) if step == 2 else nullcontext():
                return save(self, *args, **options)

        monkeypatch.setattr(checkpointing.Checkpoints, "save", save_to_full_disk)
        with pytest.raises(OSError, match=r"step_000002 could not be written.*older checkpoints are as they were"):
            train(make_tokenizer_config(output_dir=str(run), **settings))
        monkeypatch.undo()
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step_000001"]
        train(make_tokenizer_config(output_dir=str(run), resume="latest", **settings))
        assert_same_run(run, straight)


def test_a_disk_that_fills_up_anywhere_else_ends_in_a_message_and_the_run_can_go_on(
    make_tokenizer_config: Any, tokenizer_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "audio_tokenizer": SETTINGS, "save_every": 1, "max_steps": 2, "eval_data": str(tokenizer_corpus.dev),
        "eval_samples": 1, "eval_clips": 2,
    }  # fmt: skip
    straight = tmp_path / "straight"
    train(make_tokenizer_config(output_dir=str(straight), **settings))
    for owner, function, failing_call in (
        (run_start.TrainingRun, "write", 2),
        (train_tokenizer, "evaluate_tokenizer", 1),
        (train_tokenizer, "_save_model", 1),
    ):
        original, calls = getattr(owner, function), itertools.count(1)

        def on_full_disk(*args: Any, original: Any = original, calls: Any = calls, fails: int = failing_call) -> Any:
            with full_disk(700) if next(calls) == fails else nullcontext():
                return original(*args)

        def with_options(*args: Any, on_full_disk: Any = on_full_disk, original: Any = original, **options: Any) -> Any:
            return on_full_disk(*args, original=functools.partial(original, **options))

        monkeypatch.setattr(owner, function, with_options)
        run = tmp_path / function
        with pytest.raises(OSError, match=r"File too large|could not be written"):
            train(make_tokenizer_config(output_dir=str(run), **settings))
        monkeypatch.undo()
        assert not (run / "model").exists()
        train(make_tokenizer_config(output_dir=str(run), resume="latest", **settings))
        assert_same_run(run, straight)


# -------------------------------------------------------------------------------------------------------- sudden death

# Where a run is killed: module, function, at which call, and the moment.
UPDATE = ("audiollm.training.audio_tokenizer.trainer", "TokenizerUpdater.update")
QUICK_DEATHS = [
    (*UPDATE, 3, "after"),
    ("torch", "save", 2, "after"),  # in the middle of a checkpoint's files
    ("os", "replace", 7, "before"),  # when it is complete but has not got its name
    ("os", "replace", 7, "after"),  # when `latest` does not name it yet
    ("os", "replace", 12, "after"),  # the same of the second checkpoint
    ("shutil", "rmtree", 1, "before"),  # before the first one is removed
    ("audiollm.tokenizer.supervision.model", "SupervisedTokenizer.save_pretrained", 1, "after"),  # at the very end
]
DEATHS = [
    *[(*UPDATE, step, moment) for step in range(1, 5) for moment in ("before", "after")],
    *[("os", "replace", call, "after") for call in range(1, 15)],
    *[("torch", "save", call, "before") for call in range(1, 9)],
    ("audiollm.training.loop.record", "MetricsLog.write", 3, "before"),
]
EVALUATION_DEATHS = [
    ("audiollm.training.audio_tokenizer.evaluation", "write_samples", 1, "before"),
    ("audiollm.training.train_tokenizer", "draw_run", 1, "before"),
]


def run_jobs(folder: Path, jobs: list[dict[str, Any]]) -> list[int]:
    """Runs trainings one after the other in a fresh program; returns how each ended, and prints what they wrote."""
    for number, job in enumerate(jobs):
        path = folder / f"job_{number}.json"
        path.write_text(json.dumps(config_as_json(job["config"])))
        job["config"] = str(path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_runs.py"))],
        input=json.dumps(jobs), capture_output=True, text=True, env=environment, timeout=1800,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    sys.stderr.write(ended.stderr)  # pytest shows it beside a failure
    statuses: list[int] = json.loads(ended.stdout.splitlines()[-1])
    return statuses


@pytest.fixture
def make_mortal_config(make_tokenizer_config: Any, tmp_path: Path) -> Callable[..., Any]:
    """A config of four updates and two checkpoints, with everything that has a state."""

    def make(name: str, **changes: Any) -> Any:
        settings = {
            "output_dir": str(tmp_path / name), "audio_tokenizer": SETTINGS, "max_steps": 4, "save_every": 2,
            "keep_checkpoints": 1, "augmentation": AugmentationConfig(probability=0.5),
        }  # fmt: skip
        return make_tokenizer_config(**settings | changes)

    return make


def assert_deaths_change_nothing(
    make_config: Callable[..., Any], deaths: list[tuple[str, str, int, str]], folder: Path, **changes: Any
) -> None:
    """Kills a run at each of several places, goes on from its last checkpoint, and compares with one left in peace."""
    jobs: list[dict[str, Any]] = [{"config": make_config("straight", **changes)}]
    for number, death in enumerate(deaths):
        jobs.append({"config": make_config(f"death_{number}", **changes), "kill": death})
        jobs.append({"config": make_config(f"death_{number}", resume="latest", **changes)})
    statuses = run_jobs(folder, jobs)
    killed, completed = zip(deaths, statuses[1::2], strict=True), zip(["none", *deaths], statuses[::2], strict=True)
    assert [(death, status) for death, status in killed if status != -9] == []
    assert [(death, status) for death, status in completed if status != 0] == []
    for number, death in enumerate(deaths):
        assert_same_run(folder / f"death_{number}", folder / "straight")
        left = {path.name for path in (folder / f"death_{number}" / "checkpoints").iterdir()}
        # The one before may outlive a death between the two; files of a half-written one may not.
        assert {"latest", "step_000004"} <= left <= {"latest", "step_000002", "step_000004"}, death


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(make_mortal_config: Any, tmp_path: Path) -> None:
    assert_deaths_change_nothing(make_mortal_config, QUICK_DEATHS, tmp_path)


@pytest.mark.slow
def test_killed_anywhere_and_resumed_equals_uninterrupted_to_the_bit(make_mortal_config: Any, tmp_path: Path) -> None:
    assert_deaths_change_nothing(make_mortal_config, DEATHS, tmp_path)


@pytest.mark.slow
def test_killed_while_evaluating_and_resumed_equals_uninterrupted_to_the_bit(
    make_mortal_config: Any, tokenizer_corpus: Any, tmp_path: Path
) -> None:
    settings = {"eval_data": str(tokenizer_corpus.dev), "eval_samples": 1, "eval_clips": 2}
    assert_deaths_change_nothing(make_mortal_config, EVALUATION_DEATHS, tmp_path, **settings)


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment_it_ends_as_if_nothing_had_happened(
    make_mortal_config: Any, tmp_path: Path
) -> None:
    generator = random.Random(0)
    settings = {"save_every": 1, "max_steps": 12}
    jobs: list[dict[str, Any]] = [{"config": make_mortal_config("straight", **settings)}]
    for _ in range(20):
        config = make_mortal_config("mortal", resume="latest", **settings)
        jobs.append({"config": config, "after": generator.uniform(0.2, 4.0)})
    jobs.append({"config": make_mortal_config("mortal", resume="latest", **settings)})
    statuses = run_jobs(tmp_path, jobs)
    assert -9 in statuses
    assert set(statuses[1:-1]) <= {-9, 0}
    assert statuses[0] == statuses[-1] == 0
    assert_same_run(tmp_path / "mortal", tmp_path / "straight")


def test_half_a_line_of_metrics_is_forgotten(make_tokenizer_config: Any, tmp_path: Path) -> None:
    settings = {"audio_tokenizer": SETTINGS, "max_steps": 2, "save_every": 1}
    train(make_tokenizer_config(**settings))
    shutil.copytree(tmp_path / "run", tmp_path / "straight")
    shutil.rmtree(tmp_path / "run" / "model")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "step": 3, "lo')
    train(make_tokenizer_config(resume="latest", **settings))
    assert_same_run(tmp_path / "run", tmp_path / "straight")
