"""Finds the result files below a folder and tells by their own fields what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiollm.benchmarks.questions.registry import BENCHMARKS

Content = Mapping[str, Any]

ROUNDING = 1e-6  # of shares in files


class _NoFigureError(ValueError):
    """A number of a result is none."""


@dataclass(frozen=True)
class ResultFile:
    """A result.

    Attributes:
        path: of the file.
        kind: one of ``KINDS``.
        content: what it holds.
    """

    path: Path
    kind: str
    content: Content

    @property
    def benchmark(self) -> str:
        """What it is a result of; results of different benchmarks do not compare."""
        return str(self.content.get("benchmark", self.kind))


@dataclass(frozen=True)
class UnreadFile:
    """A JSON file that is no result, and why."""

    path: Path
    reason: str


@dataclass
class FoundResults:
    """What there is below a folder.

    Attributes:
        results: in the order of their paths.
        unread: JSON files that are no results.
        parts: JSON files that runs keep beside their results; nothing is wrong with them.
    """

    results: list[ResultFile] = field(default_factory=list)
    unread: list[UnreadFile] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)


def _is_of(benchmark: str, *names: str) -> Callable[[Content], bool]:
    return lambda content: content.get("benchmark") == benchmark and all(name in content for name in names)


def _has(*names: str) -> Callable[[Content], bool]:
    return lambda content: all(name in content for name in names)


# What tells a result's kind, and the fields that it must have beside. The first that fits is it.
_KINDS: Mapping[str, tuple[Callable[[Content], bool], tuple[str, ...]]] = {
    "judged questions": (
        _has("accuracy_of_evaluated", "judge"),
        ("benchmark", "n_evaluated", "n_not_evaluated", "predictions", "items"),
    ),
    "questions": (
        lambda content: content.get("benchmark") in BENCHMARKS and "mode" in content,
        ("accuracy", "table", "items", "n_items", "n_counted", "n_correct", "n_missing", "n_unreadable", "predictions"),
    ),
    "seed-tts": (_is_of("seed-tts", "runs"), ("summary", "meta", "language", "judges", "system", "n_items")),
    "seed-tts wer": (_is_of("seed-tts", "averaged"), ("wer", "language", "items", "n_items")),
    "seed-tts sim": (_is_of("seed-tts", "speaker_similarity"), ("n_items", "scores")),
    "reconstruction": (_is_of("reconstruction"), ("rows", "data", "judges", "n_items")),
    "transcription": (_is_of("transcription"), ("rows", "data", "language", "n_items")),
    "clustering": (_is_of("clustering"), ("settings",)),
    "attribute control": (_is_of("attribute-control"), ("attributes", "judge")),
    "stability": (_has("num_clips", "rows", "config"), ("seconds",)),
    "sound classes": (_has("config", "clustering", "codes"), ()),
    "sap": (_has("scores", "items", "missing"), ("data",)),
}
KINDS = tuple(_KINDS)

# What runs keep beside their results.
_PARTS: tuple[Callable[[Content], bool], ...] = (
    _has("n_audio_checked", "sha256"),  # check.json of a question benchmark
    _has("benchmark", "meta_sha256"),  # run.json of seed-tts
    _has("kind", "fingerprint", "frame_rate"),  # run.json of a tokenizer in a reconstruction
    lambda content: set(content) == {"data_sha256", "split"},  # run.json of its originals
    _has("data_sha256", "mono"),  # run.json of a transcription
    lambda content: set(content) - {"cut"} == {"judge", "words"},  # judge.json of attribute control
    _has("model", "texts", "seed", "max_seconds"),  # run.json of attribute control
    _has("comparisons", "n_failed"),  # of compare-results
)


def find_results(folder: Path) -> FoundResults:
    """Looks at every ``*.json`` below a folder; folders and files whose name begins with a dot are left out.

    Args:
        folder: with results of any depth; or one result file.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder of results")
    found = FoundResults()
    for path in [folder] if folder.is_file() else _json_files(folder):
        try:
            content = _read(path)
            if isinstance(content, list) or any(is_part(content) for is_part in _PARTS):
                found.parts.append(path)
            else:
                found.results.append(ResultFile(path, kind_of(content), content))
        except (OSError, ValueError) as error:
            found.unread.append(UnreadFile(path, str(error).removeprefix(f"{path}: ")))
    return found


def read_result(path: Path) -> ResultFile:
    """Reads one result.

    Raises:
        ValueError: if it is none that is known, saying why.
        OSError: if it cannot be read.
    """
    try:
        content = _read(path)
        if isinstance(content, list):
            raise ValueError("a list of records, such as predictions, and no result")
        return ResultFile(path, kind_of(content), content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def kind_of(content: Content) -> str:
    """One of ``KINDS``.

    Raises:
        ValueError: if it is none of them, or lacks a field that results of its kind have.
    """
    for kind, (is_it, required) in _KINDS.items():
        if is_it(content):
            missing = [name for name in required if name not in content]
            if missing:
                raise ValueError(f"a result of the kind {kind!r} without {', '.join(missing)}")
            return kind
    shown = ", ".join(list(content)[:6]) or "nothing"
    raise ValueError(f"no result of a known benchmark; it holds {shown}")


def _json_files(folder: Path) -> list[Path]:
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(parent, name) for name in names if name.endswith(".json") and not name.startswith(".")]
    return sorted(paths)


def _refuse_number(name: str) -> None:
    raise _NoFigureError(f"holds {name}, which is no figure; compute the result again")


def _check_counts(content: Content) -> None:
    """Refuses a result of questions whose numbers contradict each other."""
    items = content.get("items")
    if content.get("benchmark") not in BENCHMARKS or "mode" not in content or not isinstance(items, list):
        return
    counted = [item for item in items if isinstance(item, dict) and item.get("counted")]
    told = {"n_items": len(items), "n_counted": len(counted)}
    told["n_correct"] = sum(bool(item.get("correct")) for item in counted)
    for name, number in told.items():
        if content.get(name, number) != number:
            raise ValueError(f"{name} is {content[name]!r}, but its items make {number}; score the predictions again")
    share = told["n_correct"] / told["n_counted"] if counted else 0.0
    accuracy = content.get("accuracy", share)
    if not isinstance(accuracy, (int, float)) or abs(accuracy - share) > ROUNDING:
        raise ValueError(f"accuracy is {accuracy!r}, but its items make {share:.6f}; score the predictions again")


def _read(path: Path) -> Content | list[Content]:
    """An object; or a list of objects, which is how predictions are published."""
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_number)
    except UnicodeDecodeError as error:
        raise ValueError(f"not a text of UTF-8 ({error})") from error
    except _NoFigureError:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error}); was it written to its end?") from error
    except RecursionError as error:
        raise ValueError("nested too deeply to be a result") from error
    if isinstance(content, dict):
        _check_counts(content)
        return content
    if isinstance(content, list) and content and all(isinstance(record, dict) for record in content):
        return content
    raise ValueError(f"a JSON {type(content).__name__} of something else than records; a result is an object")
