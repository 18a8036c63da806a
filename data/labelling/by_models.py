"""Clips in, Semantic-Acoustic Primitives out: labelled by models, resumable after any interruption.

Clips are labelled by a few threads at a time (``labelling_models``), in order, and appended to ``<output>.partial``
(``partial_output``), which becomes ``<output>`` in one rename when all is done. A killed run goes on where it stopped,
and so does one that stopped because a model no longer answered. Clips without labels that hold are kept apart, with the
reason and the reply. For corpora whose labels are known, ``sap_rules`` needs no model.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audiollm.data.audio.opening import AudioError
from audiollm.data.chat.base import ChatError
from audiollm.data.files.atomic import atomic_write
from audiollm.data.manifest import Manifest, RecordError
from audiollm.data.resumable_output import PartialOutput
from audiollm.data.tokenizing.corpus import shard_path
from audiollm.data.tokenizing.source import open_corpus

from .clips import ClipsOfSplit, labelled_record, read_label_clip
from .models import ModelLabeller, RejectedClipError
from .report import LabellingReport, Prices

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of a clip: a record or an error."""

    index: int
    where: str
    record: dict[str, Any] | None = None
    error: AudioError | RecordError | ChatError | None = None


def label_corpus(
    source: Any,
    output: str | os.PathLike[str],
    labeller: ModelLabeller,
    *,
    concurrency: int = 8,
    max_failures: int = 10,
    num_shards: int = 1,
    shard: int = 0,
    split: str | None = None,
    base_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    prices: Mapping[str, Prices] | None = None,
    progress: bool = True,
) -> LabellingReport:
    """Labels the clips of a corpus.

    A clip ``{"audio", "text"?, …}`` becomes a record for training a tokenizer, ``{"id", "audio", "text", "sap",
    "caption", "sound_type", "duration_seconds", …, "labelling"}``; the last says what models took and what was
    repaired. Without a text, nobody is taken to speak.

    Args:
        source: clips in any form that :func:`audiollm.data.tokenizing.source.open_corpus` opens.
        output: ``.parquet`` or anything else for JSONL. Of several shards, each writes
            :func:`audiollm.data.tokenizing.corpus.shard_path` of it. ``<output>.rejected.jsonl`` lists what was
            refused, ``<output>.report.json`` holds the report.
        labeller: the models.
        concurrency: clips labelled at a time.
        max_failures: stop when so many clips in a row get no answer; they are not counted as refused then, and the next
            run asks for them again.
        num_shards: cut the corpus into this many parts, for as many processes or machines.
        shard: which part this is, from 0.
        split: label only this split: of a data set that has several, or of records that name theirs.
        base_dir: folder that relative audio paths start from; by default that of the file they are written in.
        overwrite: replace an output that exists.
        prices: what tokens cost, by role.
        progress: show a progress bar.

    Returns:
        Counts, tokens and cost.

    Raises:
        ChatError: a model does not answer. What is done so far is kept: run again to go on.
        ValueError: nothing to do, the output exists, no clip could be labelled, or an interrupted run had another
            corpus, model, prompt or setting.
    """
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard={shard} of num_shards={num_shards}: shards count from 0 to num_shards - 1")
    for name, value in (("concurrency", concurrency), ("max_failures", max_failures)):
        if value < 1:
            raise ValueError(f"{name}={value}: use 1 or more")
    manifest = open_corpus(source, base_dir=base_dir, split=split)
    if split is not None:
        manifest = ClipsOfSplit(manifest, split)
    start, stop = (len(manifest) * edge // num_shards for edge in (shard, shard + 1))
    if start == stop:
        raise ValueError(f"{manifest.name} holds no records" + (f" for shard {shard}" if len(manifest) else ""))
    path = shard_path(output, shard, num_shards)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; delete it, choose another output, or set overwrite")
    settings = {"corpus": manifest.fingerprint, "shard": f"{shard} of {num_shards}", **labeller.facts}
    started = time.perf_counter()
    with PartialOutput(path, settings) as partial:
        report = partial.resume(start, LabellingReport(str(path), labeller.facts, dict(prices or {})))
        indices = range(start + report.resumed, stop)
        writer = _Writer(partial, report, max_failures)
        with (
            closing(_outcomes(manifest, labeller, indices, path, concurrency)) as outcomes,
            tqdm(total=stop - start, initial=report.resumed, unit="clip", disable=not progress) as bar,
        ):
            for outcome in outcomes:
                writer.take(outcome)
                bar.update()
                bar.set_postfix(report.progress, refresh=False)
            writer.settle()
        if report.rejected:
            logger.warning("%d clips were refused; %s says why", report.rejected, partial.rejected_path)
        if not report.records:
            partial.discard()
            raise ValueError(f"all {report.rejected} clips were refused; {partial.rejected_path} says why")
        partial.finish()
    report.wall_seconds = time.perf_counter() - started
    with atomic_write(report_path(path)) as file:
        json.dump(report.to_dict(), file, indent=2, ensure_ascii=False)
    return report


def report_path(output: str | os.PathLike[str]) -> Path:
    """Where the report of an output lies."""
    return Path(f"{os.fspath(output)}.report.json")


class _Writer:
    """Writes outcomes, in order. Clips that got no answer wait until it is clear whose fault that is."""

    def __init__(self, partial: PartialOutput, report: LabellingReport, max_failures: int) -> None:
        self._partial, self._report, self._max_failures = partial, report, max_failures
        self._unanswered: list[Outcome] = []

    def take(self, outcome: Outcome) -> None:
        """Writes an outcome, or keeps it for later.

        Raises:
            ChatError: if the model is to blame.
        """
        if isinstance(outcome.error, ChatError):
            self._unanswered.append(outcome)
            if outcome.error.fatal or len(self._unanswered) >= self._max_failures:
                self._stop(outcome.error)
            return
        self.settle()
        if outcome.record is None:
            self._reject(outcome)
        else:
            self._partial.append(outcome.record)
            self._report.add(outcome.record)

    def settle(self) -> None:
        """Counts the clips that wait as refused: others were answered after them, or there are no others."""
        for outcome in self._unanswered:
            self._reject(outcome)
        self._unanswered.clear()

    def _reject(self, outcome: Outcome) -> None:
        error = outcome.error
        if isinstance(error, ChatError):
            error = RecordError(outcome.where, str(error))
        assert error is not None  # no record, hence an error
        details = error.details if isinstance(error, RejectedClipError) else None
        self._report.reject(self._partial.reject(outcome.index, error, details))

    def _stop(self, error: ChatError) -> None:
        done = self._report.records + self._report.rejected
        if done:
            kept = f"{done} clips are done and kept: run the same command again to go on"
            raise ChatError(f"{error}; {kept}", fatal=True) from error
        self._partial.discard()
        raise error


def _outcomes(
    manifest: Manifest, labeller: ModelLabeller, indices: Sequence[int], path: Path, concurrency: int
) -> Generator[Outcome]:
    """Labels clips, a few at a time, and yields what became of them in order."""
    audio_folder = path.with_name(f"{path.stem}_audio")

    def label(index: int) -> Outcome:
        where = manifest.where(index)
        try:
            clip = read_label_clip(index, manifest[index], where, manifest.base_dir(index))
            labels = labeller.label(clip)
            record = labelled_record(
                clip, labels.sap, labels.caption, labels.duration_seconds, path.parent, audio_folder
            )
        except (AudioError, RecordError, ChatError) as error:
            return Outcome(index, where, error=error)
        return Outcome(index, where, record=record | labels.provenance)

    pending: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="label") as executor:
        try:
            for index in indices:
                pending.append(executor.submit(label, index))
                if len(pending) >= 2 * concurrency:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
