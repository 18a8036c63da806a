"""Corpus tokenization: recordings in, codes out, resumable after any interruption.

Records are read in order, decoded ahead by a few threads, encoded in batches and appended to ``<output>.partial``,
which becomes ``<output>`` in one rename when all is done. A killed run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import itertools
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from .atomic import atomic_write, sync_folder
from .audio import AudioError, Mono
from .containers import starts_like_audio
from .conversation import AudioPart, Conversation, parse_audio_part, parse_conversation
from .manifest import MANIFEST_SUFFIXES, Manifest, RecordError, Records, open_manifest

if TYPE_CHECKING:
    from audiollm.tokenizer.base import AudioTokenizer

try:
    import fcntl
except ImportError:  # Windows: two runs on one output are not noticed there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".w64"),
    *(".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".amr", ".ac3", ".sph"),
)
DEFAULT_SEGMENT_SECONDS = 30.0  # for tokenizers that set no limit
BATCHES_AHEAD = 4  # audio gathered before encoding, in batches: the tokenizer sorts it by length and pads less
MAX_GATHERED_RECORDS = 1024
NUM_DECODERS = 4  # threads; libsndfile works without Python's lock
PARQUET_ROWS = 1000  # per row group


@dataclass
class CorpusReport:
    """What a corpus became. Counts cover the whole output, resumed parts too; times cover this run."""

    output: str
    records: int = 0
    clips: int = 0
    seconds: float = 0.0  # of audio
    tokens: int = 0
    tokens_per_second: float = 0.0  # of audio
    skipped: int = 0  # records left out because something in them is bad
    rejected: str | None = None  # the file that lists them
    resumed: int = 0  # records that an earlier run had done
    wall_seconds: float = 0.0
    realtime_speed: float = 0.0  # seconds of audio encoded per second of this run


def tokenize_corpus(
    source: Any,
    audio_tokenizer: AudioTokenizer,
    output: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    mono: Mono = "first",
    batch_size: int = 16,
    num_shards: int = 1,
    shard: int = 0,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> CorpusReport:
    """Turns the audio of a corpus into codes.

    Each recording goes to the tokenizer at its own rate; one longer than a whole batch is streamed from disk. A
    conversation record comes out with ``{"type": "audio", "codes": […]}`` in place of its audio and everything else as
    it was; a clip as ``{"id", "audio", "codes", "num_samples", "sample_rate", "duration_seconds", …}``.

    Args:
        source: conversation records or clip records (``{"audio": path, …}`` or a bare path per line) in any form that
            :func:`audiollm.data.manifest.open_manifest` reads; an audio file; a folder of them; a list of paths.
        audio_tokenizer: anything with ``encode`` and ``fingerprint``; ``encode_stream`` keeps memory flat for long
            recordings.
        output: ``.parquet`` or anything else for JSONL. Of several shards, each writes :func:`shard_path` of it.
        skip_bad: leave out records with bad audio or fields, and list them in ``<output>.rejected.jsonl``, instead of
            stopping at the first.
        mono: which waveform of several channels: the first one (as the reference tokenizer does) or their mean.
        batch_size: segments (30 s for Whisper encoders) encoded at once.
        num_shards: cut the corpus into this many parts, for as many processes or machines.
        shard: which part this is, from 0.
        base_dir: folder that relative audio paths start from; by default that of the file they are written in.
        split: which split of a data set that has several.
        overwrite: replace an output that exists.
        progress: show a progress bar.

    Returns:
        Counts and speed.

    Raises:
        AudioError: a bad recording, named with file, line and reason. What is done so far is kept: run again to go on.
        RecordError: a bad record, named with file, line and field.
        ValueError: nothing to do, the output exists, or an interrupted run had another corpus, tokenizer or setting.
    """
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard={shard} of num_shards={num_shards}: shards count from 0 to num_shards - 1")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: use 1 or more")
    if mono not in ("first", "mean"):
        raise ValueError(f'mono={mono!r}: use "first" or "mean"')
    manifest = open_corpus(source, base_dir=base_dir, split=split)
    if len(manifest) == 0:
        raise ValueError(f"{manifest.name} holds no records")
    start, stop = (len(manifest) * edge // num_shards for edge in (shard, shard + 1))
    path = shard_path(output, shard, num_shards)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; delete it, choose another output, or overwrite it")
    settings = {
        "corpus": manifest.fingerprint,
        "audio_tokenizer": audio_tokenizer.fingerprint(),  # type: ignore[attr-defined]
        "mono": mono,
        "shard": f"{shard} of {num_shards}",
    }
    started = time.perf_counter()
    with _Partial(path, settings) as partial:
        report = partial.resume(start)
        resumed_seconds = report.seconds
        job = _Job(manifest, audio_tokenizer, settings["audio_tokenizer"], mono, batch_size, path.parent)
        done = report.records + report.skipped
        with tqdm(total=stop - start, initial=done, unit="record", disable=not progress) as bar:
            for item in job.run(range(start + done, stop)):
                if item.error is None:
                    partial.append(item.output)
                    _count(report, item.output)
                elif skip_bad:
                    partial.reject(item.index, item.error)
                    report.skipped += 1
                else:
                    raise item.error
                bar.update()
        if report.skipped:
            report.rejected = str(partial.rejected_path)
            logger.warning("%d records were left out; %s says why", report.skipped, partial.rejected_path)
        if not report.records and stop > start:
            partial.discard()
            raise ValueError(f"all {report.skipped} records are bad; {partial.rejected_path} says why")
        partial.finish()
    report.wall_seconds = time.perf_counter() - started
    report.realtime_speed = (report.seconds - resumed_seconds) / report.wall_seconds
    report.tokens_per_second = report.tokens / report.seconds if report.seconds else 0.0
    return report


def shard_path(output: str | os.PathLike[str], shard: int, num_shards: int) -> Path:
    """Returns where a shard is written: ``codes-00000-of-00004.jsonl``; one shard alone keeps the plain name."""
    path = Path(output)
    return path if num_shards == 1 else path.with_name(f"{path.stem}-{shard:05d}-of-{num_shards:05d}{path.suffix}")


class AudioFiles(Records):
    """Audio files as clip records ``{"id", "audio"}``; the id is the path as given, or relative to the folder.

    Args:
        files: id and path of each.
        name: what messages call them.
    """

    def __init__(self, files: Sequence[tuple[str, str]], name: str) -> None:
        super().__init__([{"id": identifier, "audio": path} for identifier, path in files], name)

    @property
    def fingerprint(self) -> str:
        """sha256 over ids and sizes: enough to notice another corpus, without reading all of it."""
        digest = hashlib.sha256()
        for record in self._records:
            size = os.path.getsize(record["audio"]) if os.path.isfile(record["audio"]) else -1
            digest.update(json.dumps([record["id"], size]).encode())
        return digest.hexdigest()


def open_corpus(source: Any, *, base_dir: str | os.PathLike[str] | None = None, split: str | None = None) -> Manifest:
    """Opens what :func:`tokenize_corpus` accepts: records from anywhere, or audio files.

    In a folder, a file counts as audio if its first bytes or its suffix say so; others (a README) are left alone.

    Raises:
        RecordError: no such file, a folder without audio, an unreadable format.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if os.path.isfile(path) and _is_audio_file(path):
            return AudioFiles([(os.path.basename(path), path)], path)
        if os.path.isdir(path) and not _is_record_folder(path):
            return _open_audio_folder(path)
    elif isinstance(source, Sequence) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        folder = os.fspath(base_dir or "")
        return AudioFiles([(os.fspath(item), os.path.join(folder, item)) for item in source], "<list of files>")
    return open_manifest(source, base_dir=base_dir, split=split, plain_paths=True)


def _is_audio_file(path: str) -> bool:
    with open(path, "rb") as file:
        return starts_like_audio(file.read(12)) or path.lower().endswith(AUDIO_SUFFIXES)


def _is_record_folder(path: str) -> bool:
    names = os.listdir(path)
    return any(n in ("dataset_info.json", "dataset_dict.json") or n.endswith(MANIFEST_SUFFIXES) for n in names)


def _open_audio_folder(path: str) -> AudioFiles:
    files = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in names:
            file = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(file) and _is_audio_file(file):
                files.append((Path(os.path.relpath(file, path)).as_posix(), file))
    if not files:
        raise RecordError(path, "holds neither audio files nor records")
    return AudioFiles(sorted(files), path)


# --- records to codes -------------------------------------------------------------------------------------------------


@dataclass
class _Clip:
    """One recording on its way."""

    part: AudioPart
    sample_rate: int
    num_samples: int
    waveform: Tensor | None  # None: too long to hold, to be streamed
    codes: Tensor | None = None  # [K, T]


@dataclass
class _Item:
    """One record on its way."""

    index: int
    record: Any = None
    conversation: Conversation | None = None  # None: a clip record
    clips: list[_Clip] = field(default_factory=list)
    error: AudioError | RecordError | None = None
    output: dict[str, Any] = field(default_factory=dict)

    @property
    def held_seconds(self) -> float:
        return sum(clip.num_samples / clip.sample_rate for clip in self.clips if clip.waveform is not None)


class _Job:
    """Decodes, encodes and rewrites records, in order."""

    def __init__(
        self,
        manifest: Manifest,
        audio_tokenizer: AudioTokenizer,
        fingerprint: str,
        mono: Mono,
        batch_size: int,
        output_folder: Path,
    ) -> None:
        self._manifest = manifest
        self._audio_tokenizer = audio_tokenizer
        self._fingerprint = fingerprint
        self._mono = mono
        self._output_folder = os.path.abspath(output_folder)
        segment_seconds = audio_tokenizer.max_segment_seconds or DEFAULT_SEGMENT_SECONDS
        self._batch_seconds = batch_size * segment_seconds
        takes_batch_size = "batch_size" in inspect.signature(audio_tokenizer.encode).parameters
        self._options = {"batch_size": batch_size} if takes_batch_size else {}

    def run(self, indices: Sequence[int]) -> Iterator[_Item]:
        """Yields each record with its output or its error; nothing is lost before a record with an error."""
        gathered: list[_Item] = []
        seconds = 0.0
        for item in self._decoded(indices):
            gathered.append(item)
            seconds += item.held_seconds
            full = seconds >= BATCHES_AHEAD * self._batch_seconds or len(gathered) >= MAX_GATHERED_RECORDS
            if full or item.error is not None:
                yield from self._encoded(gathered)
                gathered, seconds = [], 0.0
        yield from self._encoded(gathered)

    def _decoded(self, indices: Sequence[int]) -> Iterator[_Item]:
        """Decodes a few records ahead of the one that is yielded."""
        pending: deque[Future[_Item]] = deque()
        with ThreadPoolExecutor(NUM_DECODERS, thread_name_prefix="decode") as executor:
            try:
                for index in indices:
                    pending.append(executor.submit(self._decode, index))
                    if len(pending) > 2 * NUM_DECODERS:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                executor.shutdown(wait=False, cancel_futures=True)

    def _decode(self, index: int) -> _Item:
        item = _Item(index)
        where, base_dir = self._manifest.where(index), self._manifest.base_dir(index)
        try:
            item.record = self._manifest[index]
            if isinstance(item.record, Conversation):
                item.record = item.record.to_dict()
            if isinstance(item.record, Mapping) and "messages" in item.record:
                size = self._audio_tokenizer.codebook_size
                item.conversation = parse_conversation(item.record, where=where, base_dir=base_dir, codebook_size=size)
                parts = [part for part in item.conversation.audio_parts if part.codes is None]
            else:
                parts = [_clip_part(item.record, where, base_dir)]
            item.clips = [self._load(part) for part in parts]
        except (AudioError, RecordError) as error:
            item.error = error
        return item

    def _load(self, part: AudioPart) -> _Clip:
        can_stream = part.array is None and hasattr(self._audio_tokenizer, "encode_stream")
        if can_stream:
            info = part.probe()
            if info.duration_seconds > self._batch_seconds:
                return _Clip(part, info.sample_rate, 0, None)
        waveform, sample_rate = part.load(mono=self._mono)
        return _Clip(part, sample_rate, len(waveform), waveform)

    def _encoded(self, items: Sequence[_Item]) -> Iterator[_Item]:
        by_rate: dict[int, list[_Clip]] = {}
        for item in items:
            for clip in item.clips if item.error is None else []:
                if clip.waveform is not None:
                    by_rate.setdefault(clip.sample_rate, []).append(clip)
        for sample_rate, clips in by_rate.items():
            waveforms = [clip.waveform for clip in clips if clip.waveform is not None]
            codes = self._audio_tokenizer.encode(waveforms, sample_rate, **self._options)
            for index, clip in enumerate(clips):
                clip.codes, clip.waveform = codes[index], None
        for item in items:
            if item.error is None:
                try:
                    for clip in item.clips:
                        if clip.codes is None:
                            self._encode_stream(clip)
                    item.output = self._output(item)
                except (AudioError, RecordError) as error:
                    item.error = error
            yield item
            item.clips, item.record = [], None

    def _encode_stream(self, clip: _Clip) -> None:
        def blocks() -> Iterator[Tensor]:
            for block in clip.part.stream(self._mono):
                clip.num_samples += len(block)
                yield block

        encode_stream = self._audio_tokenizer.encode_stream  # type: ignore[attr-defined]
        pieces = list(encode_stream(blocks(), clip.sample_rate))
        clip.codes = torch.cat([piece if piece.dim() == 2 else piece[None] for piece in pieces], dim=1)

    def _output(self, item: _Item) -> dict[str, Any]:
        where = self._manifest.where(item.index)
        for clip in item.clips:
            if clip.codes is None or clip.codes.shape[1] == 0:
                raise AudioError(clip.part.where, "the audio tokenizer gives no codes for it")
        if item.conversation is None:
            return self._clip_output(item.record, item.clips[0], os.path.basename(where))
        if item.clips and item.clips[0].codes is not None and item.clips[0].codes.shape[0] != 1:
            raise RecordError(where, "conversation records hold one codebook's codes; this tokenizer has several")
        codes = iter(item.clips)
        messages = [
            dataclasses.replace(message, content=[_with_codes(part, codes) for part in message.content])
            for message in item.conversation.messages
        ]
        output = dataclasses.replace(item.conversation, messages=messages).to_dict()
        if item.clips:
            seconds = sum(clip.num_samples / clip.sample_rate for clip in item.clips)
            output |= {"audio_seconds": seconds, "audio_tokenizer": self._fingerprint}
        return output

    def _clip_output(self, record: Any, clip: _Clip, where: str) -> dict[str, Any]:
        assert clip.codes is not None  # _output checked
        others = {"id": record} if isinstance(record, str) else {"id": where, **record}
        path = clip.part.path
        if path is not None:
            # Relative paths in a manifest start from its folder: keep them so where the file lies below it.
            below = os.path.relpath(os.path.abspath(path), self._output_folder)
            path = os.path.abspath(path) if below.startswith("..") else Path(below).as_posix()
        for key in ("path", "bytes", "array", "sampling_rate"):
            others.pop(key, None)
        return {
            **others,
            "audio": path,
            "codes": clip.codes[0].tolist() if len(clip.codes) == 1 else clip.codes.tolist(),
            "num_samples": clip.num_samples,
            "sample_rate": clip.sample_rate,
            "duration_seconds": clip.num_samples / clip.sample_rate,
            "audio_tokenizer": self._fingerprint,
        }


def _clip_part(record: Any, where: str, base_dir: str | None) -> AudioPart:
    """Finds the audio of a clip record: ``{"audio": …}``, ``{"path": …}`` or a bare path."""
    if isinstance(record, str):
        value: Any = record
    elif isinstance(record, Mapping):
        keys = [key for key in ("audio", "path", "bytes") if record.get(key) is not None]
        if not keys:
            found = ", ".join(map(str, list(record)[:10])) or "nothing"
            raise RecordError(where, f"has neither messages nor audio; it has {found}")
        value = record["audio"] if "audio" in keys else {key: record[key] for key in keys}
    else:
        raise RecordError(where, f"a record is an object or a path, not a {type(record).__name__}")
    return parse_audio_part(value, where=where, base_dir=base_dir)


def _with_codes(part: Any, clips: Iterator[_Clip]) -> Any:
    if not isinstance(part, AudioPart) or part.codes is not None:
        return part
    codes = next(clips).codes
    assert codes is not None  # _output checked
    return AudioPart(codes=codes[0].tolist())


def _count(report: CorpusReport, output: Mapping[str, Any]) -> None:
    """Adds an output record to the totals; the same whether it was made now or by the run that was interrupted."""
    report.records += 1
    if "messages" not in output:
        codes = output["codes"]
        report.clips += 1
        report.tokens += len(codes) if isinstance(codes[0], int) else len(codes) * len(codes[0])
        report.seconds += output["duration_seconds"]
        return
    parts = [part for message in output["messages"] for part in message["content"] if part["type"] == "audio"]
    report.clips += len(parts)
    report.tokens += sum(len(part["codes"]) for part in parts)
    report.seconds += output.get("audio_seconds", 0.0)


# --- the growing output -----------------------------------------------------------------------------------------------


class _Partial:
    """An output that grows: ``.partial`` (records done), ``.partial.json`` (settings) and ``.rejected.jsonl``.

    A record ends up in exactly one of the two lists, and rejections reach the file before the records that follow
    them. So the number of lines done and the rejected indices tell where to go on, wherever the process was killed.
    """

    def __init__(self, output: Path, settings: dict[str, str]) -> None:
        self._output = output
        self._settings = settings
        self._path = output.with_name(output.name + ".partial")
        self._settings_path = output.with_name(output.name + ".partial.json")
        self.rejected_path = output.with_name(output.name + ".rejected.jsonl")
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes]

    def __enter__(self) -> _Partial:
        self._output.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._stack.enter_context(open(self._path, "a+b"))
        try:
            self._lock()
            self._check_settings()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "give each process its own shard (num_shards, shard)"
            raise ValueError(f"{self._path} is being written by another process; wait for it, or {fix}") from error

    def _check_settings(self) -> None:
        """Starts afresh if there is nothing to go on with; raises if what is there belongs to another run."""
        is_empty = os.fstat(self._file.fileno()).st_size == 0
        earlier = None
        if self._settings_path.exists():
            earlier = json.loads(self._settings_path.read_text(encoding="utf-8"))
        if is_empty and (earlier != self._settings or self._output.exists()):
            self.rejected_path.unlink(missing_ok=True)
            with atomic_write(self._settings_path) as file:
                json.dump(self._settings, file, indent=2)
            return
        for name, value in self._settings.items():
            if earlier is None or earlier.get(name) != value:
                before = "unknown" if earlier is None else earlier.get(name)
                raise ValueError(
                    f"{self._path} was begun with another {name} ({before}, now {value}); "
                    "delete it to start afresh, or choose another output"
                )

    def resume(self, start: int) -> CorpusReport:
        """Drops what was half written and counts what is done from index ``start`` on."""
        report = CorpusReport(str(self._output))
        for record in _complete_lines(self._file):
            _count(report, record)
        rejected = set()
        if self.rejected_path.exists():
            with open(self.rejected_path, "r+b") as file:
                lines = list(_complete_lines(file))
                rejected = {line["index"] for line in lines}
                # Walk over the records done; rejections behind them were noted just before the process was killed.
                following, left = start, report.records
                while left or following in rejected:
                    left -= following not in rejected
                    following += 1
                kept = [line for line in lines if line["index"] < following]
                file.seek(0)
                file.truncate()
                file.writelines(_line(line) for line in kept)
            report.skipped = len(kept)
        report.resumed = report.records + report.skipped
        return report

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record that is done."""
        self._file.write(_line(record))
        self._file.flush()

    def reject(self, index: int, error: AudioError | RecordError) -> None:
        """Notes a record that is left out."""
        source, reason = error.args
        entry = {"index": index, "source": source, "reason": reason}
        with open(self.rejected_path, "ab") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Removes an output that came to nothing, so that the next run starts afresh."""
        self._path.unlink()
        self._settings_path.unlink()

    def finish(self) -> None:
        """Puts the output in its place, whole."""
        os.fsync(self._file.fileno())
        if self._output.suffix == ".parquet":
            self._file.seek(0)
            try:
                _write_parquet(self._file, self._output)
            except (TypeError, ValueError) as error:  # what pyarrow raises for a column of several types
                fix = f"all is done, as JSONL, in {self._path}: rename that to .jsonl"
                raise ValueError(f"{self._output} cannot hold these records ({error}); {fix}") from error
            self._path.unlink()
        else:
            os.replace(self._path, self._output)
        sync_folder(self._output.parent)
        self._settings_path.unlink()


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Writes what data sets hold beside JSON's own types: dates, arrays."""
    for method in ("isoformat", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a record holds a {type(value).__name__}, which JSON cannot hold; remove that column")


def _complete_lines(file: IO[bytes]) -> Iterator[Any]:
    """Yields the records of a file, then cuts off the half line that a killed process may have left."""
    file.seek(0)
    position = 0
    for line in file:
        try:
            if not line.endswith(b"\n"):
                raise ValueError("half a line")
            record = json.loads(line)
        except ValueError:
            break
        yield record
        position += len(line)
    file.seek(position)
    file.truncate()


def _write_parquet(lines: IO[bytes], output: Path) -> None:
    """Converts JSONL to parquet in two passes: one to find the types of all records, one to write."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    def chunks() -> Iterator[list[dict[str, Any]]]:
        lines.seek(0)
        while rows := [_uniform(json.loads(line)) for line in itertools.islice(lines, PARQUET_ROWS)]:
            yield rows

    def schema_of(rows: list[dict[str, Any]]) -> pyarrow.Schema:
        names = dict.fromkeys(name for row in rows for name in row)  # pyarrow looks at the first row's only
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names}).schema

    schemas = [schema_of(rows) for rows in chunks()]
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    with atomic_write(output, "wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in chunks():
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _uniform(record: dict[str, Any]) -> dict[str, Any]:
    """Writes as JSON text what has another shape in every record: the functions a model may call, and its calls."""
    if record.get("tools") is not None:
        record["tools"] = json.dumps(record["tools"], ensure_ascii=False)
    for message in record.get("messages", ()):
        if message.get("tool_calls") is not None:
            message["tool_calls"] = json.dumps(message["tool_calls"], ensure_ascii=False)
    return record
