"""Identities: which file figures were computed from, and which run a folder holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiollm.data.files.hashing import file_sha256
from audiollm.data.files.json_lines import check_same_run

# In the folder of a run: what it is of, its figures, and what judges said of each recording.
RUN_NAME = "run.json"
RESULT_NAME = "result.json"
VERDICTS_NAME = "verdicts.jsonl"


def file_identity(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """What the field ``predictions`` of a result holds.

    Args:
        path: of the file; it must exist.
        folder: of the result, if the file is below it: then the name is relative to it.
    """
    name = Path(path).name if folder is None else Path(path).relative_to(folder).as_posix()
    return {"file": name, "sha256": file_sha256(path)}


def require_folder(output_dir: str | os.PathLike[str]) -> Path:
    """The folder that is to be written, which need not be there.

    Raises:
        NotADirectoryError: if it, or what it lies in, is a file.
    """
    path = Path(output_dir)
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    if there is not None and not there.is_dir():
        raise NotADirectoryError(f"{there} is a file: give a folder for the output")
    return path


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes down what run a folder holds, or refuses to go on with another one.

    Raises:
        ValueError: the folder holds another run, naming what is different.
    """
    check_same_run(
        folder / RUN_NAME,
        identity,
        output=folder,
        otherwise="choose another output, or delete the folder to start afresh",
    )
