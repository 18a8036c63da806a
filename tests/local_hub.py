"""A Hub of folders on this machine, from which only the files come that are asked for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects


def serve_folders(monkeypatch: pytest.MonkeyPatch, repositories: Mapping[str, Path], cache: Path) -> None:
    """Lets `find_folder` download from folders.

    Args:
        monkeypatch: undoes it.
        repositories: folders by their names on the Hub.
        cache: where downloads go. As in the Hub's own, the folder of one of which no file is wanted is not there.
    """

    def download(name: str, *, allow_patterns: Any = None, ignore_patterns: Any = None, **_: Any) -> str:
        if name not in repositories:
            raise OSError(f"there is no {name}")
        source, target = repositories[name], cache / name.replace("/", "--") / "snapshots" / "1"
        files = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, target / file)
        return str(target)

    monkeypatch.setattr("audiollm.tokenizer.checkpoints.folders.snapshot_download", download)
