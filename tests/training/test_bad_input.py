"""Runs that meet bad input, bad settings, a full disk or a signal: stopped by name, or gone on with to the same bits.

Each is tried on a plain list of records and on a mixture, whose records are read while the model trains.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from audiollm.data.files.lock import FileInUseError, locked_file
from audiollm.training.loop import checkpoints
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.stopping import RunStoppedError
from audiollm.training.sft import train

from .finished_runs import assert_same_weights, metrics_of

SFT = "training/sft.py"
ANSWER = {"role": "assistant", "content": "yes"}


def asked(*parts: dict[str, Any], **record: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}, ANSWER], **record}


@pytest.fixture(params=["plain", "mixture"])
def data(request, assets, tmp_path: Path):
    """Writes records beside some of the assets, or the assets alone, as a source of the kind that is tried."""

    def write(records: list[Any] | None = None, **settings: Any) -> str:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        lines = assets.train.read_text().splitlines()
        if records is not None:
            lines = [*lines[:20], *map(json.dumps, records)]
        (folder / "ünï 🎵.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        if request.param == "plain":
            return str(folder / "ünï 🎵.jsonl")
        mixture = {"sources": [{"data": "ünï 🎵.jsonl"}], "shuffle": 10, **settings}
        (folder / "mix.yaml").write_text(yaml.safe_dump(mixture, allow_unicode=True), encoding="utf-8")
        return str(folder / "mix.yaml")

    return write


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": [{"role": "user"}, ANSWER]}, r"messages\[0\]\.content: missing"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]}, "is empty"),
        ({"messages": [{"role": "user", "content": "x"}]}, "nothing to learn|no assistant turn"),
        (asked({"type": "audio", "codes": [64]}), r"codes\[0\]: 64 is out of range; codes are from 0 to 63"),
        (asked({"type": "audio", "codes": [-1]}), r"codes\[0\]: -1 is out of range"),
        (asked({"type": "audio", "codes": [1.5]}), r"codes\[0\]: must be a whole number"),
        (asked({"type": "audio", "codes": [3]}, audio_tokenizer="f" * 64), "made by another audio tokenizer"),
        (asked({"type": "audio", "codes": [3]}, audio_tokenizer=7), "must be a fingerprint"),
        (asked({"type": "audio", "path": "absent 🎵.wav"}), "no such file"),
        (asked({"type": "text", "text": "x" * 300}), r"\d+ tokens are more than max_length=256"),
        ({"text": "no conversation"}, "messages"),
        ([1], "list"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_a_bad_record_is_named_before_the_first_update(make_config, data, tmp_path, record, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        train(make_config(train_data=data([record]), max_length=256))
    assert "ünï 🎵.jsonl:" in str(raised.value)
    assert metrics_of(tmp_path / "run") == [] if (tmp_path / "run" / "metrics.jsonl").exists() else True


@pytest.mark.parametrize("packing", ["none", "pack"])
def test_passes_that_hold_no_record_are_refused_with_the_setting(make_config, data, packing):
    with pytest.raises(DataError, match=r"tokens are more than tokens_per_pass=5: .* raise tokens_per_pass"):
        train(make_config(train_data=data(), tokens_per_pass=5, packing=packing))
    with pytest.raises(
        DataError, match=r"longer than tokens_per_pass|no records to train on \(40 skipped as too long\)"
    ):
        train(make_config(train_data=data(), tokens_per_pass=5, packing=packing, on_too_long="skip"))


def test_codes_that_do_not_say_who_made_them_are_told(make_config, data, caplog):
    train(make_config(train_data=data(), max_steps=1))
    assert "ünï 🎵.jsonl: codes in 40 of 40 records don't say which audio tokenizer made them" in caplog.text


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [{}, {"packing": "pack", "tokens_per_pass": 128}])
def test_a_kernel_that_is_not_there_is_told_with_what_to_set(make_config, data, packing):
    with pytest.raises(ImportError, match="attn_implementation=flash_attention_2 cannot be used here, take sdpa: "):
        train(make_config(train_data=data(), attn_implementation="flash_attention_2", **packing))


def test_other_settings_are_another_run(make_config, data, tmp_path):
    train(make_config(train_data=data(), max_steps=1))
    others: list[tuple[dict[str, Any], str]] = [
        ({"packing": "pack", "tokens_per_pass": 128}, "packing: none → pack"),
        ({"tokens_per_pass": 128}, "tokens_per_pass: None → 128"),
        ({"optimizer": "muon"}, "optimizer: adamw → muon"),
        ({"schedule": "linear"}, "schedule: cosine → linear"),
    ]
    for settings, told in others:
        with pytest.raises(ResumeError, match=told):
            train(make_config(train_data=data(), max_steps=2, resume="latest", **settings))
    with pytest.raises(ResumeError, match=r"data\.(records|sources)"):
        train(make_config(train_data=data([asked({"type": "text", "text": "new"})]), max_steps=2, resume="latest"))


# --- what happens meanwhile -------------------------------------------------------------------------------------------


def test_numbers_that_are_none_stop_the_run_and_name_its_records(make_config, data, assets, tmp_path):
    broken = shutil.copytree(assets.audio_llm, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = 3e38  # a number, and too large to compute with
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteLossError, match=r"update 1: (loss|gradient norm) is (nan|inf)"):
        train(make_config(train_data=data(), model=str(broken)))
    (report,) = (tmp_path / "run").glob("non_finite_step_*.json")
    names = [name for one in json.loads(report.read_text())["passes"] for name in one["records"]]
    assert len(names) == 8
    assert all(name.startswith("record-") for name in names)
    assert math.isfinite(sum(len(name) for name in names))


def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_goes_on_from_it(make_config, data, tmp_path, monkeypatch):
    settings = {"train_data": data(), "save_every": 2}
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    save, saves = torch.save, []

    def full_disk(value: Any, path: Any) -> None:
        saves.append(path)
        if len(saves) == 4:  # in the second checkpoint
            raise OSError(28, "No space left on device")
        save(value, path)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(make_config(**settings))
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["latest", "step_000002"]
    train(make_config(resume="latest", **settings))
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "straight")
    assert_same_weights(tmp_path / "run", tmp_path / "straight")


def test_a_signal_during_a_save_leaves_that_checkpoint_whole_and_stops_after_one_more_update(
    make_config, data, tmp_path, monkeypatch
):
    settings = {"train_data": data(), "save_every": 2}
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    save = torch.save

    def interrupted(value: Any, path: Any) -> None:
        if "000002" in str(path) or "step" not in str(path):
            os.kill(os.getpid(), signal.SIGTERM)
        save(value, path)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(
        RunStoppedError, match=r"after update 3 of 6; .*step_000003 holds it, go on with --resume latest"
    ):
        train(make_config(**settings))
    monkeypatch.undo()
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_000002", "step_000003"]
    assert [checkpoints.read_state(folder / name).step for name in ("step_000002", "step_000003")] == [2, 3]
    train(make_config(resume="latest", **settings))
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "straight")
    assert_same_weights(tmp_path / "run", tmp_path / "straight")


def test_two_runs_do_not_share_a_folder(make_config, data, tmp_path):
    with locked_file(tmp_path / "run"), pytest.raises(FileInUseError, match="in use by another run"):
        train(make_config(train_data=data()))
    train(make_config(train_data=data(), max_steps=1))
    with pytest.raises(ValueError, match=r"already holds a run: choose another output_dir, or go on with --resume"):
        train(make_config(train_data=data(), max_steps=1))


@pytest.mark.multiprocess
def test_a_slow_process_is_waited_for_and_changes_nothing(make_config, data, launches, tmp_path):
    settings = {"train_data": data(), "num_processes": 2, "max_steps": 3}
    even, uneven = (make_config(output_dir=str(tmp_path / name), **settings) for name in ("even", "uneven"))
    assert launches.run("ddp", SFT, even).returncode == 0
    ended = launches.run("ddp", SFT, uneven, slowed={1: 1.0})
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(uneven.output_dir) == metrics_of(even.output_dir)
    assert_same_weights(Path(uneven.output_dir), Path(even.output_dir))
