"""Training records of the audio tokenizer: for every clip a waveform, and the tokens of one task's text."""
# Shapes: N samples, at 16 kHz unless the reader of the records has another rate.

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from audiollm.data.audio.reading import Mono
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.manifest import open_manifest
from audiollm.data.sampling import share_of
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError

from .check import Limits, RecordsCheck, TargetEncoder, check_records, report_problems
from .clips import ClipReader
from .targets import TASKS, ClipTargets

CACHE_BYTES = 1 << 30  # nine hours of audio


@dataclass(frozen=True)
class TokenizerExample:
    """One clip and what to learn of it."""

    index: int  # within the usable records
    id: str
    where: str  # file and line
    waveform: Tensor  # [N] float32, at the reader's rate
    task: str
    token_ids: list[int]  # start token of the task … end-of-text
    sound_type: str
    noisy_waveform: Tensor | None = (
        None  # [N] float32: the same with noise, for voters that hear it; all have it or none
    )


class TokenizerRecords:
    """Map-style access to training clips, all of them checked when it is made.

    Checking decodes every clip once. Waveforms stay in memory until ``cache_bytes`` are used; the others are decoded
    again whenever they are asked for. Either way an example is the same: clip, epoch and seed alone decide it.

    Args:
        source: records ``{"audio", "text"?, "sap"?, "caption"?, "emotion"?, "sound_type"?, "id"?, "split"?}``:
            whatever `open_manifest` takes.
        text: turns target texts into tokens.
        tasks: weight of each supervision task; a clip's task is drawn among those it has something for.
        max_seconds: longer clips cannot be used. None: any length.
        max_text_tokens: targets of more tokens, behind the start token, cannot be used. None: those that the text
            decoder has no positions for.
        on_bad: whether records that cannot be used are an error, or left out and counted.
        split: only records whose ``split`` is this.
        mono: of several channels, their "mean" (as the reference trains) or the "first" (as it tokenizes).
        cache_bytes: memory for waveforms, in this process.
        process_index: with ``num_processes``, which share of the records this process checks.
        num_processes: how many check together; all of them must make this object.
        gather: joins every process's ``[check]`` to one list, such as ``accelerate.utils.gather_object``.
        progress: show a progress bar.
        reader: what reads the records, and at which rate.
        known_tasks: those that it may find something for.

    Raises:
        DataError: listing the records that cannot be used, each with file, line, field and reason
            (``on_bad="error"``), or that none is left.
        RecordError: no such file, or a format that is not read.
        ValueError: for other arguments that make no sense.
    """

    def __init__(
        self,
        source: Any,
        text: TargetEncoder,
        *,
        tasks: Mapping[str, float],
        max_seconds: float | None = 30.0,
        max_text_tokens: int | None = None,
        on_bad: Literal["error", "skip"] = "error",
        split: str | None = None,
        mono: Mono = "mean",
        cache_bytes: int = CACHE_BYTES,
        process_index: int = 0,
        num_processes: int = 1,
        gather: Callable[[list[RecordsCheck]], list[RecordsCheck]] = lambda mine: mine,
        progress: bool = False,
        reader: type[ClipReader] = ClipReader,
        known_tasks: Sequence[str] = TASKS,
    ) -> None:
        if max_text_tokens is not None and max_text_tokens < 1:
            raise ValueError(f"max_text_tokens={max_text_tokens}: use 1 or more, such as 448")
        if on_bad not in ("error", "skip"):
            raise ValueError(f'on_bad={on_bad!r}: use "error" or "skip"')
        self.weights = check_weights(tasks, known_tasks)
        self._text = text
        self._reader = reader(open_manifest(source), mono=mono, cache_bytes=cache_bytes)
        numbers = share_of_process(list(range(len(self._reader.manifest))), process_index, num_processes)
        limits = Limits(tuple(self.weights), max_seconds, max_text_tokens, split)
        part = check_records(self._reader, text, numbers, limits, progress=progress)
        check = RecordsCheck.merge(gather([part]))
        report_problems(check, self.name, on_bad=on_bad, split=split)
        self._entries = list(check.entries.values())
        self.skipped = [
            {"record": number, "where": self._reader.where(number), "reason": "\n".join(lines)}
            for number, lines in check.problems.items()
        ]
        self.token_ids = sorted(check.token_ids)

    # --------------------------------------------------------------- metadata

    token_ids: list[int]
    """All tokens that occur in targets, ascending: what a restricted output vocabulary needs to hold."""

    skipped: list[dict[str, Any]]
    """Records that were left out: number, file and line, reason."""

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self._reader.manifest.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 over recordings, ids, sound types and target tokens of all usable records, in order."""
        return hashlib.sha256("".join(entry.digest for entry in self._entries).encode()).hexdigest()

    @property
    def seconds(self) -> float:
        """Duration of all usable clips."""
        return sum(entry.num_samples for entry in self._entries) / self._reader.sample_rate

    def __len__(self) -> int:
        return len(self._entries)

    def id(self, index: int) -> str:
        """The record's own id, or its number in the manifest."""
        return self._entries[index].id

    def where(self, index: int) -> str:
        """File and line of the record, for messages."""
        return self._reader.where(self._entries[index].record)

    def tasks(self, index: int) -> tuple[str, ...]:
        """Tasks with a weight that the record has something for."""
        return self._entries[index].tasks

    def sound_type(self, index: int) -> str:
        """speech, sound, music or mix."""
        return self._entries[index].sound_type

    def num_samples(self, index: int) -> int:
        """N, without decoding the clip."""
        return self._entries[index].num_samples

    # ----------------------------------------------------------------- access

    def record(self, index: int) -> Mapping[str, Any]:
        """The record as it is written, labels that nothing here reads included."""
        return self._reader.record(self._entries[index].record)

    def targets(self, index: int) -> ClipTargets:
        """The record's texts of all tasks, and its parsed SAP record."""
        return self._reader.targets(self._entries[index].record)

    def waveform(self, index: int) -> Tensor:
        """float32 ``[N]``, at 16 kHz unless the reader has another rate.

        Raises:
            DataError: if the recording can no longer be read.
        """
        return self._reader.waveform(self._entries[index].record)

    def example(self, index: int, epoch: int, seed: int, *, task: str | None = None) -> TokenizerExample:
        """One clip as it is trained on; may be called from several threads.

        Args:
            index: which of the usable records.
            epoch: pass over the data.
            seed: of the run; with epoch and id it decides the task.
            task: use this one instead, such as for evaluation.

        Raises:
            DataError: if the recording can no longer be read, or the record has nothing for ``task``.
        """
        entry = self._entries[index]
        if task is None:
            task = choose_task(self.weights, entry.tasks, seed=seed, epoch=epoch, clip_id=entry.id)
        texts = self.targets(index).texts
        if task not in texts:
            raise DataError(f"{self.where(index)}: has nothing for the task {task}; it has {', '.join(texts)}")
        return TokenizerExample(
            index=index,
            id=entry.id,
            where=self.where(index),
            waveform=self.waveform(index),
            task=task,
            token_ids=self._text.encode(task, texts[task]),
            sound_type=entry.sound_type,
        )

    def write_skipped(self, folder: Path, role: str) -> Path | None:
        """Writes the records that were left out to ``skipped_<role>.jsonl``; None if there are none."""
        if not self.skipped:
            return None
        path = folder / f"skipped_{role}.jsonl"
        write_json_lines(path, self.skipped)
        return path


def choose_task(weights: Mapping[str, float], tasks: Sequence[str], *, seed: int, epoch: int, clip_id: str) -> str:
    """Picks one of a clip's tasks by weight; the same one whenever seed, epoch and clip are the same.

    Args:
        weights: weight of each task; they need not sum to 1.
        tasks: what the clip has, each with a positive weight.
        seed: of the run.
        epoch: pass over the data, so that a clip's tasks take turns.
        clip_id: id of the clip.
    """
    total = sum(weights[task] for task in tasks)
    threshold = share_of(seed, epoch, clip_id, "task") * total
    for task in tasks[:-1]:
        threshold -= weights[task]
        if threshold < 0:
            return task
    return tasks[-1]


def check_weights(weights: Mapping[str, float], known: Sequence[str] = TASKS) -> dict[str, float]:
    """Returns the tasks that have a weight, in the order of those that are known.

    Raises:
        ValueError: for an unknown task, a weight that is negative or no number, or no weight at all.
    """
    for task, weight in weights.items():
        if task not in known:
            raise ValueError(f"tasks: {task!r} is not a task; choose among {', '.join(known)}")
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"tasks: {task}={weight}: use a weight of 0 or more, such as 1")
    chosen = {task: float(weights[task]) for task in known if weights.get(task)}
    if not chosen:
        raise ValueError(f"tasks: all weights are 0; give at least one of {', '.join(known)} a weight, such as 1")
    return chosen
