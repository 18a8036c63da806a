from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from audiollm.training.loop.record import (
    MetricsLog,
    git_revision,
    package_versions,
    read_metrics,
    warn_of_unfinished_runs,
)


def test_metrics_after_the_resumed_update_are_dropped_and_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, last_step=0)
    for step in (1, 2, 3):
        log.write({"step": step, "run": "first"})
    with path.open("a") as file:
        file.write('{"step": 4, "ru')  # killed while writing
    resumed = MetricsLog(path, last_step=2)
    resumed.write({"step": 3, "run": "second"})
    assert [(line["step"], line["run"]) for line in read_metrics(path)] == [(1, "first"), (2, "first"), (3, "second")]


def test_a_new_run_starts_an_empty_file(tmp_path):
    MetricsLog(tmp_path / "metrics.jsonl", last_step=0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize(("content", "is_told"), [(None, True), (b"\0" * 300, True), (b"", False)])
def test_lines_that_are_gone_when_a_run_goes_on_are_told(tmp_path, caplog, content, is_told) -> None:
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_bytes(content)  # an empty one: nothing had been logged yet
    MetricsLog(path, last_step=7)
    assert ("has nothing of the first 7 updates" in caplog.text) == is_told
    MetricsLog(tmp_path / "new.jsonl", last_step=0)
    assert "new.jsonl" not in caplog.text


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", last_step=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"step": 1, "loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_versions_of_absent_packages_are_none(monkeypatch):
    monkeypatch.setattr("audiollm.training.loop.record._RECORDED_PACKAGES", ("numpy", "no-such-package"))
    versions = package_versions()
    assert versions["no-such-package"] is None
    assert versions["numpy"]
    json.dumps(versions)


def test_the_revision_is_a_commit_marked_when_dirty_and_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert git_revision(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_revision(tmp_path) is None


def test_runs_that_have_updates_to_go_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Some trainers save a model along the way: whoever builds on it should know."""
    for name, last in (("half", 4), ("whole", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"num_updates": 8}')
        lines = [{"event": "train", "step": last}, {"event": "eval", "step": 8}]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("[]")

    @dataclass
    class Config:
        output_dir: str = str(tmp_path / "half")  # its own
        resume: str = str(tmp_path / "half")
        stage: dict[str, Any] = field(
            default_factory=lambda: {"semantic": str(tmp_path / "half"), "other": [1, "x" * 999]}
        )
        models: tuple[str, ...] = (
            str(tmp_path / "whole"),
            str(tmp_path / "half"),
            str(tmp_path / "other"),
            "mini",
            "\0",
        )

    warn_of_unfinished_runs(Config())
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition("=")[0] for text in told] == ["stage.semantic", "models.1"]
    assert "half is a run after update 4 of 8" in told[0]
