"""Folders of checkpoints: one door for folders and Hub ids, and files that appear whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from audiollm.tokenizer.checkpoints.folders import find_folder, replaced_files


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the Hub is asked for; it gives a folder, and nothing for ``nobody/nothing``."""
    requests: list[tuple[str, dict[str, Any]]] = []

    def download(repository: str, **options: Any) -> str:
        requests.append((repository, options))
        if repository == "nobody/nothing":
            raise LocalEntryNotFoundError("it is not here.\nLook elsewhere.")
        return str(tmp_path)

    monkeypatch.setattr("audiollm.tokenizer.checkpoints.folders.snapshot_download", download)
    return requests


def test_a_folder_is_found_without_the_hub(tmp_path: Path, asked: list[tuple[str, dict[str, Any]]]) -> None:
    assert find_folder(tmp_path, needed=["*"]) == find_folder(str(tmp_path)) == tmp_path
    assert asked == []


def test_of_a_repository_only_what_is_needed_is_downloaded(
    tmp_path: Path, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    assert find_folder("someone/model", needed=["a/*"], passed_over=["a/b"], revision="main", token=False) == tmp_path
    assert find_folder("someone/model") == tmp_path
    patterns = {"allow_patterns": ["a/*"], "ignore_patterns": ["a/b"]}
    assert asked == [("someone/model", {"revision": "main", "token": False, **patterns}), ("someone/model", {})]


@pytest.mark.usefixtures("asked")
def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nobody/nothing is neither a folder here nor a decoder on the Hub: it is not here\. L"
    ):
        find_folder("nobody/nothing", kind="decoder")
    for path in ("./nowhere", "~/nowhere", "runs/first/model", str(tmp_path / "nowhere")):  # the Hub has no such names
        with pytest.raises(ValueError, match=r"nor a checkpoint on the Hub, whose names are owner/name$"):
            find_folder(path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"model\.safetensors is a file; pass the folder"):
        find_folder(tmp_path / "model.safetensors")
    with pytest.raises(TypeError, match=r"unknown options: revison; known are repo_type, revision"):
        find_folder(tmp_path, revison="main")


def test_files_take_their_places_when_all_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("old", "new"):
        with replaced_files(folder, "weights", "config") as staging:
            assert list(staging.iterdir()) == []
            for name in ("config", "vocabulary", "weights"):
                (staging / name).write_text(content)
        assert sorted(path.name for path in folder.iterdir()) == ["config", "vocabulary", "weights"]
        assert (folder / "config").read_text() == (folder / "weights").read_text() == content


def test_an_error_leaves_the_files_as_they_were(tmp_path: Path) -> None:
    def break_off() -> None:
        with replaced_files(tmp_path, "weights", "config") as staging:
            (staging / "weights").write_text("half")
            raise OSError("disk full")

    (tmp_path / "weights").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        break_off()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("weights", "old")]


def test_what_a_killed_process_left_goes_when_it_is_a_day_old(tmp_path: Path) -> None:
    abandoned, alive = tmp_path / ".writing-old", tmp_path / ".writing-new"
    yesterday = time.time() - 25 * 60 * 60
    for folder in (abandoned, alive):
        folder.mkdir()
        (folder / "weights").write_text("half")
        os.utime(folder, (yesterday, yesterday))
    os.utime(abandoned / "weights", (yesterday, yesterday))
    with replaced_files(tmp_path, "config") as staging:
        (staging / "config").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-new", "config"]
