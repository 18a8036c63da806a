"""Traces of figures: the file of predictions that a result names, found again and compared by its hash."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from audiollm.data.files.hashing import file_sha256

from .result_files import ResultFile

# These are computed from sound; their results hold every single verdict, and no other file is scored.
_WITHOUT_PREDICTIONS = ("attribute control", "stability", "sound classes")


@dataclass(frozen=True)
class Trace:
    """The file that figures were computed from.

    Attributes:
        file: as the result names it; None if it names none.
        path: where it was found; None if it was not.
        sha256: of its bytes, as the result has it.
        problem: why the figures cannot be traced to it; None if they can.
    """

    file: str | None
    path: Path | None = None
    sha256: str | None = None
    problem: str | None = None


class PredictionFiles:
    """The files below a folder of results, to look for predictions in.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root if root.is_dir() else root.parent
        self._by_name: dict[str, list[Path]] | None = None
        self._hashes: dict[Path, str] = {}

    def trace(self, result: Path, named: Any) -> Trace:
        """Looks for a file beside the result, then as it is named, then anywhere below the folder.

        Args:
            result: the file that names it.
            named: ``{"file": …, "sha256": …}``; anything else is no name.
        """
        named = named if isinstance(named, Mapping) else {}
        file, sha256 = named.get("file"), named.get("sha256")
        if not isinstance(file, str) or not file:
            return Trace(None, problem="the result names no file of predictions")
        if not isinstance(sha256, str) or not sha256:
            return Trace(file, problem=f"the result does not say the hash of {file}")
        name = PurePath(file).name
        others = []
        for path in self._candidates(result, file, name):
            if self._hash(path) == sha256:
                return Trace(file, path, sha256)
            others.append(path)
        if others:
            return Trace(file, others[0], sha256, f"{file} has changed: another hash than when it was scored")
        return Trace(file, None, sha256, f"{file} is missing")

    def _candidates(self, result: Path, file: str, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for parent, folders, names in os.walk(self._root):
                folders.sort()
                for found in names:
                    self._by_name.setdefault(found, []).append(Path(parent, found))
        near = [result.parent / file, result.parent / name]
        return [path for path in dict.fromkeys([*near, Path(file), *self._by_name.get(name, [])]) if path.is_file()]

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = file_sha256(path)
        return self._hashes[path]


def traces_of(result: ResultFile, files: PredictionFiles) -> list[Trace]:
    """What the figures of a result come from: one file, or one of each run or row that was measured."""
    content = result.content
    if result.kind in _WITHOUT_PREDICTIONS:
        return []
    if result.kind == "seed-tts":
        parts = [run for run in (*content["runs"], content.get("ground_truth")) if run]
        return [files.trace(result.path, part.get("predictions")) for part in parts]
    if result.kind in ("reconstruction", "transcription"):
        return [files.trace(result.path, row.get("predictions")) for row in content["rows"].values()]
    names = ["predictions", "verdicts"] if result.kind == "judged questions" else ["predictions"]
    return [files.trace(result.path, content.get(name)) for name in names]
