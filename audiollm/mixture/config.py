"""What a model is trained on, as one YAML file: sources, how often each is drawn, and what each is to teach."""

from __future__ import annotations

import glob
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audiollm.data.manifest import YAML_SUFFIXES, may_be_hub_id
from audiollm.program import check_config_file, made_of

from .templates.registry import check_task

_EXAMPLES = {"tasks": "a list, such as [transcribe]"}  # what fits, where the type says too little


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of a mixture."""

    data: str
    """A JSONL or parquet file, a folder or glob pattern of them, a folder saved by ``datasets``, or a Hub id."""

    name: str | None = None
    """What reports and messages call it; ``data`` if not given."""

    tasks: tuple[str, ...] = ("conversation",)
    """What is made of its records; of several tasks, one is drawn for each record in each pass."""

    weight: float | None = None
    """How often it is drawn, relative to the others; given for all sources, or for none (see ``temperature``)."""

    epochs: int | None = None
    """Passes after which it has run out. None: it goes on as long as the run."""

    tokens: int | None = None
    """Tokens after which it has run out, by the mean length of its records in a sample. None: no such limit."""

    text_key: str | None = None
    """The key that holds the answer of a task about a clip, in place of the usual one."""

    split: str | None = None
    """Which split of a data set that has several."""

    base_dir: str | None = None
    """Folder that relative paths of recordings start from; that of the file they are written in if not given."""

    @property
    def title(self) -> str:
        """What reports and messages call it."""
        return self.name or self.data

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data is empty: give a path")
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise ValueError(f"weight={self.weight:g}: use a positive number, or take the source out")
        for key in ("epochs", "tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key}={value}: use 1 or more, or take the source out")
        if self.text_key == "":
            raise ValueError("text_key is empty: name the key that holds the answer, or leave it out")
        if not self.tasks:
            raise ValueError("tasks is empty: name at least one")
        for task in self.tasks:
            check_task(task, self.text_key)


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What a run is trained on."""

    sources: tuple[SourceConfig, ...]
    """Where records come from."""

    temperature: float = 1.0
    """Where no weights are given, a source of n records weighs n^(1/temperature): 1 in proportion, more is evener."""

    shuffle: int = 10_000
    """Records of a source that are shuffled among each other; its files are shuffled as wholes."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to records that cannot be used, and to shards that cannot be read; those skipped are counted."""

    check_records: int = 256
    """Records of each source that are looked at before the first update."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources is empty: name at least one")
        titles = Counter(source.title for source in self.sources)
        if (twice := titles.most_common(1)[0])[1] > 1:
            raise ValueError(f"two sources are called {twice[0]!r}: give each a name of its own")
        weighted = [source.title for source in self.sources if source.weight is not None]
        if weighted and len(weighted) < len(self.sources):
            missing = next(source.title for source in self.sources if source.weight is None)
            raise ValueError(
                f"source {missing!r} has no weight, but {weighted[0]!r} has: give all of them one, or none"
            )
        if not math.isfinite(sum(source.weight or 0 for source in self.sources)):
            raise ValueError("the weights add up to more than a number can hold: divide all of them by the same")
        if weighted and self.temperature != 1:
            raise ValueError("temperature has no effect beside weights: leave one of them out")
        if not 1 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature:g}: use 1 (in proportion to size) or more")
        for key in ("shuffle", "check_records"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: use 1 or more")


def is_mixture(source: Any) -> bool:
    """Whether a source of records is the file of a mixture."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(YAML_SUFFIXES)


def read_mixture(path: str | os.PathLike[str]) -> MixtureConfig:
    """Reads the file of a mixture. Relative paths in it start from its folder.

    Raises:
        ValueError: naming the file, the source and what is wrong: a key that does not exist, a value that does not fit.
        OSError: if the file cannot be read.
    """
    file = Path(path)
    content = check_config_file(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds no settings: it names sources, as in `sources: [{{data: train.jsonl}}]`")
    given = dict(content)
    sources = given.pop("sources", None)
    if not isinstance(sources, list) or not all(isinstance(source, Mapping) for source in sources):
        raise ValueError(f"{file}: sources must be a list of sources, each with its data")
    folder = file.resolve().parent
    read = [_read_source(source, f"{file}: sources[{index}]", folder) for index, source in enumerate(sources)]
    mixture: MixtureConfig = made_of(MixtureConfig, given, str(file), sources=tuple(read))
    return mixture


def _read_source(given: Mapping[str, Any], where: str, folder: Path) -> SourceConfig:
    """A source, its paths made absolute; what reports call it is the path as it was given."""
    paths = {key: _absolute(given[key], folder) for key in ("data", "base_dir") if isinstance(given.get(key), str)}
    named = {"name": given["data"], **given} if "data" in paths else given
    source: SourceConfig = made_of(SourceConfig, {**named, **paths}, where, examples=_EXAMPLES)
    return source


def _absolute(path: str, folder: Path) -> str:
    """A path from the folder; what isn't there and may be the id of a data set on the Hub stays as it is."""
    if not path:
        return path
    beside = folder / path
    if beside.exists():
        return str(beside)
    pattern = os.path.join(glob.escape(str(folder)), path)  # the folder's own name is none
    is_pattern = glob.has_magic(path) and bool(glob.glob(pattern, recursive=True))
    if is_pattern:
        return pattern
    return path if may_be_hub_id(path) else str(beside)
