"""Readers of published questions: a JSON file beside its recordings, or parquet files, here or on the Hub."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_lines import Record, read_json_lines, write_json_lines
from audiollm.tokenizer.checkpoints.folders import find_folder

from .base import CUSTOM_SET, CUSTOM_SET_KEY, LoadedQuestions, QuestionBenchmark, Revision, first_problems
from .items import QuestionItem, without_letters

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # not ./folder
_AUDIO_COLUMNS = ("audio", "context")
_NESTED_COLUMN = "other_attributes"  # some parquet copies keep the published fields in it


def load_questions(benchmark: QuestionBenchmark, data: str, *, with_audio: bool = True) -> LoadedQuestions:
    """Reads the questions of a benchmark in its published layout.

    Args:
        benchmark: which one.
        data: the file of questions, a folder that holds it or parquet files, or the id of a data set on the Hub.
        with_audio: whether the recordings are needed.

    Returns:
        Every question that can be asked; ``audio`` is the absolute path at which the recording should be, or its bytes
        (empty if they are not there, or not needed).

    Raises:
        ValueError: if there are no questions there, or one cannot be asked.
        OSError: if a file is missing or the Hub cannot be reached.
    """
    root = _local(benchmark, data)
    files = _question_files(benchmark, root)
    if files[0].suffix == ".parquet":
        return _from_parquet(benchmark, files, with_audio)
    return _from_json(benchmark, files[0], root if root.is_dir() else root.parent)


def write_rows(rows: Sequence[Record], path: Path) -> None:
    """Writes questions: one object a line if the name ends in .jsonl, else a list; the file appears whole or not.

    Characters beyond ASCII are escaped: replies may hold halves of characters, which UTF-8 cannot.
    """
    if path.suffix == ".jsonl":
        write_json_lines(path, rows, ensure_ascii=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps(rows, indent=1) + "\n")


def check_revision(benchmark: QuestionBenchmark, loaded: LoadedQuestions, *, require_known_data: bool = False) -> None:
    """Warns of data that are not a known version.

    Raises:
        ValueError: if a known version is required.
    """
    revision = loaded.revision
    if revision.name is not None or (revision.is_custom_set and not require_known_data):
        return
    known = ", ".join(f"{start}… ({name})" for start, name in benchmark.known_revisions.items()) or "none"
    what = CUSTOM_SET if revision.is_custom_set else "not a known version"
    message = (
        f"{benchmark.title}: the questions (sha256 {revision.sha256}) are {what} (known: {known}); figures of other "
        "versions do not compare"
    )
    if require_known_data:
        raise ValueError(message)
    logger.warning("%s", message)


def _local(benchmark: QuestionBenchmark, data: str) -> Path:
    path = Path(data).expanduser()
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(data):
        raise FileNotFoundError(
            f"{data}: no such file or folder with the questions of {benchmark.title}; "
            "docs/benchmarks.md says where they are to be had"
        )
    needed = ["*.parquet"] if benchmark.parquet_first else None
    try:
        return find_folder(data, needed=needed, kind="data set", repo_type="dataset")
    except ValueError as error:
        raise OSError(f"{error}; give a local copy") from error


def _question_files(benchmark: QuestionBenchmark, root: Path) -> list[Path]:
    """The file of questions, or the parquet files that they are in."""
    if root.is_file():
        return [root]
    parquet = sorted(root.rglob("*.parquet"))
    if parquet and benchmark.parquet_first:
        return parquet
    for name in benchmark.file_names:
        found = sorted([*root.glob(name), *root.glob(f"*/{name}")])
        if found:
            return found[:1]
    if parquet:
        return parquet
    others = sorted(path for pattern in ("*.json", "*.jsonl") for path in root.glob(pattern))
    if len(others) == 1:
        return others
    raise ValueError(
        f"{root} holds no questions of {benchmark.title}: there should be {' or '.join(benchmark.file_names)}, "
        "or parquet files"
    )


def published_rows(benchmark: QuestionBenchmark, data: str) -> list[Record]:
    """The questions with all their published fields, but without recordings; in the order of `load_questions`.

    Args:
        benchmark: which one.
        data: see `load_questions`.

    Raises:
        ValueError: if there are no questions there.
        OSError: if a file is missing or the Hub cannot be reached.
    """
    files = _question_files(benchmark, _local(benchmark, data))
    if files[0].suffix == ".parquet":
        return [row for row, _ in _parquet_rows(files, with_audio=False)]
    return _json_rows(files[0], files[0].read_bytes(), [])


def _json_rows(path: Path, content: bytes, problems: list[str]) -> list[Record]:
    """The questions of a file."""
    if content.lstrip()[:1] != b"[":
        return list(read_json_lines(path, problems=problems))
    try:
        rows: list[Record] = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    return rows


def _from_json(benchmark: QuestionBenchmark, path: Path, root: Path) -> LoadedQuestions:
    content = path.read_bytes()
    problems: list[str] = []
    rows = _json_rows(path, content, problems)
    recordings = _Recordings(path.parent, root)
    items: list[QuestionItem] = []
    names: dict[str, set[str]] = defaultdict(set)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: entry {number} is not a JSON object")
        place = row.get(benchmark.audio_key)
        audio = recordings.path_of(place) if isinstance(place, str) and place else ""
        item = _question(benchmark, row, audio, f"{path}: item {row.get('id', number)}", problems)
        items.append(item)
        if isinstance(place, str):
            # Predictions may call a question by its recording, whose name need not be the question's id.
            names[place].add(item.id)
            names[PurePosixPath(place).stem].add(item.id)
    aliases = {name: next(iter(ids)) for name, ids in names.items() if len(ids) == 1 and name not in ids}
    is_custom_set = any(row.get(CUSTOM_SET_KEY) for row in rows)
    return _loaded(
        benchmark, path, items, hashlib.sha256(content).hexdigest(), problems, aliases, is_custom_set=is_custom_set
    )


def _from_parquet(benchmark: QuestionBenchmark, files: list[Path], with_audio: bool) -> LoadedQuestions:
    """Questions with their recordings inside, as the Hub keeps them."""
    problems: list[str] = []
    items: list[QuestionItem] = []
    digest = hashlib.sha256()
    for row, audio in _parquet_rows(files, with_audio):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\n")
        items.append(_question(benchmark, row, audio, f"{files[0].parent}: item {row.get('id', len(items))}", problems))
    return _loaded(benchmark, files[0].parent, items, digest.hexdigest(), problems, {})


def _parquet_rows(files: list[Path], with_audio: bool) -> Iterator[tuple[Record, bytes]]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    for path in files:
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a parquet file ({error}); download it again") from error
        names = file.schema_arrow.names
        audio_column = next((name for name in _AUDIO_COLUMNS if name in names), None)
        columns = [name for name in names if with_audio or name != audio_column]
        for batch in file.iter_batches(batch_size=64, columns=columns):
            for row in batch.to_pylist():
                audio = row.pop(audio_column, None) if audio_column is not None else None
                nested = row.pop(_NESTED_COLUMN, None)
                content = audio.get("bytes") if isinstance(audio, Mapping) else audio
                yield (nested or {}) | row, content if isinstance(content, bytes) else b""


def _question(
    benchmark: QuestionBenchmark, row: Record, audio: str | bytes, where: str, problems: list[str]
) -> QuestionItem:
    """Reads a question; its options lose the letters that some copies put before them."""
    choices = row.get("choices")
    if isinstance(choices, list):
        plain = without_letters(choices)
        answer = row.get("answer")
        position = choices.index(answer) if answer in choices else None
        row = {**row, "choices": plain, "answer": answer if position is None else plain[position]}
    item, found = benchmark.question_of(row, audio)
    fatal = [problem for problem in found if problem.fatal]
    if fatal:
        raise ValueError(f"{where}: {first_problems(map(str, fatal))}")
    if not item.id:
        raise ValueError(f"{where}: id is missing")
    if not item.question.strip():
        problems.append(f"{where}: question is missing or empty")
    present = [choice for choice in item.choices if choice is not None]
    if len(present) < 2:
        raise ValueError(f"{where}: a question needs two options or more, not {len(present)}")
    if item.answer and item.answer not in present and not any(problem.field == "answer_gt" for problem in found):
        problems.append(f"{where}: answer is {item.answer!r}, which is none of the options")
    problems += [f"{where}: {problem}" for problem in found]
    return item


def _loaded(
    benchmark: QuestionBenchmark,
    path: Path,
    items: list[QuestionItem],
    sha256: str,
    problems: list[str],
    aliases: dict[str, str],
    *,
    is_custom_set: bool = False,
) -> LoadedQuestions:
    if not items:
        raise ValueError(f"{path} holds no questions")
    known = next((name for start, name in benchmark.known_revisions.items() if sha256.startswith(start)), None)
    return LoadedQuestions(items, Revision(sha256, known, is_custom_set), problems, aliases)


class _Recordings:
    """Where the recordings of a local copy are.

    Args:
        folder: that of the file of questions, which paths are relative to.
        root: folder to search for a recording's name when it is not there.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        self._places: dict[str, Path] | None = None

    def path_of(self, place: str) -> str:
        """The absolute path of a recording; where it should be if it is nowhere."""
        path = (self.folder / place).absolute()
        if not path.is_file():
            if self._places is None:
                self._places = {found.name: found for found in sorted(self.root.rglob("*")) if found.is_file()}
            path = self._places.get(path.name, path).absolute()
        return str(path)
